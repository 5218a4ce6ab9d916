// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The modules of a crate: the file of each, its names, and where a path leads.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context as _, Result};
use syn::{Item, Visibility, visit::Visit as _};

use super::{
    graph::Imports,
    paths::{self, Found, Import, Names, attributes, is_of_tests},
};

/// Place of a module in [`Crate::modules`].
type Id = usize;

/// The module that a crate begins with.
const ROOT: Id = 0;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Meaning {
    Module(Id),
    /// An item, called so in the module that it is written in. Names may follow that of a type.
    Item {
        home: Id,
        name: Rc<str>,
        is_type: bool,
    },
}

/// Something that is imported under a name.
struct Imported {
    import: Import,
    is_public: bool,
}

struct Module {
    file: Rc<Path>,
    parent: Id,
    names: HashMap<String, Vec<Meaning>>,
    imports: Vec<Imported>,
    paths: Vec<Names>,
}

/// The modules of a crate.
pub struct Crate {
    modules: Vec<Module>,
}

impl Crate {
    /// Reads the sources of the crate that begins with this file.
    ///
    /// # Errors
    ///
    /// When one is missing, or is no Rust.
    pub fn read(file: &Path) -> Result<Self> {
        let mut read = Self { modules: Vec::new() };
        read.add_file(file.to_owned(), ROOT, file.parent().unwrap_or(file))?;
        Ok(read)
    }

    /// Adds the module of a file, whose children are in `folder`.
    fn add_file(&mut self, file: PathBuf, parent: Id, folder: &Path) -> Result<Id> {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let source =
            syn::parse_file(&text).with_context(|| format!("cannot understand {}", file.display()))?;
        self.add(&file.into(), parent, folder, &source.items)
    }

    /// Adds a module and those below it.
    fn add(&mut self, file: &Rc<Path>, parent: Id, folder: &Path, items: &[Item]) -> Result<Id> {
        let id = self.modules.len();
        let (names, imports, paths) = (HashMap::new(), Vec::new(), Vec::new());
        self.modules.push(Module { file: Rc::clone(file), parent, names, imports, paths });
        for item in items.iter().filter(|item| !is_of_tests(attributes(item))) {
            match item {
                Item::Mod(module) => {
                    let name = module.ident.to_string();
                    let below = folder.join(&name);
                    let child = match &module.content {
                        Some((_, items)) => self.add(file, id, &below, items)?,
                        None => {
                            let nested = below.join("mod.rs");
                            let file =
                                if nested.exists() { nested } else { folder.join(format!("{name}.rs")) };
                            self.add_file(file, id, &below)?
                        }
                    };
                    self.modules[id].names.entry(name).or_default().push(Meaning::Module(child));
                }
                Item::Use(item) if item.leading_colon.is_some() => {}
                Item::Use(item) => {
                    let is_public = !matches!(item.vis, Visibility::Inherited);
                    let imports = paths::imports(&item.tree);
                    let imports = imports.into_iter().map(|import| Imported { import, is_public });
                    self.modules[id].imports.extend(imports);
                }
                item => self.add_item(id, item),
            }
        }
        Ok(id)
    }

    fn add_item(&mut self, id: Id, item: &Item) {
        let mut found = Found::default();
        found.visit_item(item);
        if let Some((name, is_type)) = name(item) {
            // An exported macro is in the root, wherever it is written.
            let is_exported =
                attributes(item).iter().any(|attribute| attribute.path().is_ident("macro_export"));
            let known_in = if is_exported { ROOT } else { id };
            let meaning = Meaning::Item { home: id, name: name.as_str().into(), is_type };
            self.modules[known_in].names.entry(name).or_default().push(meaning);
        }
        let module = &mut self.modules[id];
        module.paths.extend(found.paths);
        let imports = found.imports.into_iter().map(|import| Imported { import, is_public: false });
        module.imports.extend(imports);
    }

    /// Which file imports what of which; called by their paths from `root` on.
    pub fn imports(&self, root: &Path) -> Imports {
        let called = |file: &Path| file.strip_prefix(root).unwrap_or(file).display().to_string();
        let mut all = Imports::new();
        for (id, module) in self.modules.iter().enumerate() {
            let of_file = all.entry(called(&module.file)).or_default();
            let mut import = |path: &Names, is_public: bool| {
                let meanings = self.resolve(id, path, &mut BTreeSet::new());
                // What is used of a module stands in the paths that begin with its name; a function that is called like
                // it is seldom meant.
                if meanings.iter().any(|meaning| matches!(meaning, Meaning::Module(_))) {
                    return;
                }
                for meaning in meanings {
                    let Meaning::Item { home, name, .. } = meaning else { continue };
                    let file = &self.modules[home].file;
                    // To pass on what a child defines is no use of it.
                    if *file != module.file && !(is_public && self.is_below(home, id)) {
                        of_file.entry(called(file)).or_default().insert(name.to_string());
                    }
                }
            };
            for Imported { import: Import { path, .. }, is_public } in &module.imports {
                import(path, *is_public);
            }
            module.paths.iter().for_each(|path| import(path, false));
        }
        all
    }

    /// Whether a module is in another one.
    fn is_below(&self, mut id: Id, above: Id) -> bool {
        while id != ROOT && id != above {
            id = self.modules[id].parent;
        }
        id == above
    }

    /// What a path leads to, from a module: nothing if that is another crate, or a name that a macro makes.
    ///
    /// `under_way` are the imports that are being followed.
    fn resolve(&self, from: Id, path: &[String], under_way: &mut BTreeSet<(Id, usize)>) -> Vec<Meaning> {
        let mut found = match path.first().map(String::as_str) {
            None => return Vec::new(),
            Some("crate") => vec![Meaning::Module(ROOT)],
            Some("self") => vec![Meaning::Module(from)],
            Some("super") => vec![Meaning::Module(self.modules[from].parent)],
            Some(name) => self.look_up(from, name, under_way),
        };
        for name in &path[1..] {
            let modules = found.iter().filter_map(|meaning| match meaning {
                Meaning::Module(id) if name == "super" => {
                    Some(vec![Meaning::Module(self.modules[*id].parent)])
                }
                Meaning::Module(id) => Some(self.look_up(*id, name, under_way)),
                Meaning::Item { .. } => None,
            });
            let below: Vec<Meaning> = modules.flatten().collect();
            if below.is_empty() {
                // A variant, or an associated item.
                found.retain(|meaning| matches!(meaning, Meaning::Item { is_type: true, .. }));
            } else {
                found = below;
            }
        }
        found
    }

    /// What a name stands for in a module.
    fn look_up(&self, id: Id, name: &str, under_way: &mut BTreeSet<(Id, usize)>) -> Vec<Meaning> {
        let module = &self.modules[id];
        let mut found = module.names.get(name).cloned().unwrap_or_default();
        for (number, Imported { import, .. }) in module.imports.iter().enumerate() {
            if import.name == name && under_way.insert((id, number)) {
                found.extend(self.resolve(id, &import.path, under_way));
                under_way.remove(&(id, number));
            }
        }
        if !found.is_empty() {
            return found;
        }
        for (number, Imported { import, .. }) in module.imports.iter().enumerate() {
            if import.name == "*" && under_way.insert((id, number)) {
                let path: Names = import.path.iter().cloned().chain([name.to_owned()]).collect();
                found.extend(self.resolve(id, &path, under_way));
                under_way.remove(&(id, number));
            }
        }
        found
    }
}

/// The name of what an item defines, and whether names may follow it in a path.
fn name(item: &Item) -> Option<(String, bool)> {
    let (name, is_type) = match item {
        Item::Const(item) => (&item.ident, false),
        Item::Enum(item) => (&item.ident, true),
        Item::Fn(item) => (&item.sig.ident, false),
        Item::Macro(item) => (item.ident.as_ref()?, false),
        Item::Static(item) => (&item.ident, false),
        Item::Struct(item) => (&item.ident, true),
        Item::Trait(item) => (&item.ident, true),
        Item::Type(item) => (&item.ident, true),
        Item::Union(item) => (&item.ident, true),
        _ => return None,
    };
    Some((name.to_string(), is_type))
}
