// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The paths in a piece of a source.

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Item, Meta, UseTree,
    punctuated::Punctuated,
    visit::{self, Visit},
};

/// The names between `::`.
pub type Names = Vec<String>;

/// A path of a `use`, and the name that it gives to what is there: `*` for all names.
#[derive(Debug)]
pub struct Import {
    /// What is imported; of a glob, where from.
    pub path: Names,
    /// What it is called here.
    pub name: String,
}

/// What a tree of a `use` imports.
pub fn imports(tree: &UseTree) -> Vec<Import> {
    let mut imports = Vec::new();
    collect(tree, &mut Vec::new(), &mut imports);
    imports
}

fn collect(tree: &UseTree, before: &mut Names, imports: &mut Vec<Import>) {
    let mut import = |last: &syn::Ident, name: String| {
        let mut path = before.clone();
        // `self` in braces is what stands before them.
        if last != "self" || path.is_empty() {
            path.push(last.to_string());
        }
        let name = if name == "self" { path.last().cloned().unwrap_or_default() } else { name };
        imports.push(Import { path, name });
    };
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            collect(&path.tree, before, imports);
            before.pop();
        }
        UseTree::Name(name) => import(&name.ident, name.ident.to_string()),
        UseTree::Rename(rename) => import(&rename.ident, rename.rename.to_string()),
        UseTree::Glob(_) => imports.push(Import { path: before.clone(), name: "*".to_owned() }),
        UseTree::Group(group) => group.items.iter().for_each(|tree| collect(tree, before, imports)),
    }
}

/// What is found in the body of a module.
#[derive(Default)]
pub struct Found {
    /// Paths other than those of `use`.
    pub paths: Vec<Names>,
    /// The imports of blocks.
    pub imports: Vec<Import>,
}

impl<'ast> Visit<'ast> for Found {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        // `::name` is another crate.
        if path.leading_colon.is_none() {
            self.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_item(&mut self, item: &'ast Item) {
        if !is_of_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes = match item {
            syn::ImplItem::Const(item) => &item.attrs,
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Type(item) => &item.attrs,
            syn::ImplItem::Macro(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_of_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_of_tests(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_of_tests(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.imports.extend(imports(&item.tree));
        }
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_macro(self, call);
        self.scan(call.tokens.clone());
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.scan(list.tokens.clone());
    }
}

impl Found {
    /// Takes the paths of at least two names out of what a macro is given: of single ones it is not known what they are.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path = Names::new();
        let (mut colons, mut dots) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.take(&mut path);
                    }
                    // Behind one dot is a field or a method, behind two colons alone another crate.
                    if dots != 1 && (colons != 2 || !path.is_empty()) {
                        path.push(name.to_string());
                    }
                    (colons, dots) = (0, 0);
                }
                other => {
                    self.take(&mut path);
                    colons = 0;
                    let is_dot = matches!(&other, TokenTree::Punct(punct) if punct.as_char() == '.');
                    dots = if is_dot { dots + 1 } else { 0 };
                    if let TokenTree::Group(group) = other {
                        self.scan(group.stream());
                    }
                }
            }
        }
        self.take(&mut path);
    }

    /// What has been read of a path is all of it.
    fn take(&mut self, path: &mut Names) {
        if path.len() > 1 {
            self.paths.push(std::mem::take(path));
        }
        path.clear();
    }
}

/// The attributes of an item.
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether something is compiled for tests alone.
pub fn is_of_tests(attributes: &[Attribute]) -> bool {
    let cfgs = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    cfgs.filter_map(|cfg| cfg.parse_args::<Meta>().ok()).any(|condition| !can_be(&condition, true))
}

/// Whether a condition can come out like this without `test`.
fn can_be(condition: &Meta, outcome: bool) -> bool {
    if condition.path().is_ident("test") {
        return !outcome;
    }
    let Meta::List(list) = condition else { return true };
    let Ok(parts) = list.parse_args_with(Punctuated::<Meta, syn::Token![,]>::parse_terminated) else {
        return true;
    };
    let mut parts = parts.iter();
    if list.path.is_ident("not") {
        parts.all(|part| can_be(part, !outcome))
    } else if list.path.is_ident("all") == outcome {
        // All of `all` hold, or all of `any` fail.
        parts.all(|part| can_be(part, outcome))
    } else {
        parts.any(|part| can_be(part, outcome))
    }
}
