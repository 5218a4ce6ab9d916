// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The names of what is chosen from a few: the same in the configuration, in what is printed, in JSON and metrics.

/// Gives an enum its names: `ALL`, in order, `name`, `from_name` and `Display`, and for user space `Serialize`.
macro_rules! names {
    ($type:ident { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            /// Every one, in the order of their numbers.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// Its name, wherever it is read or printed.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            /// The one of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|one| one.name() == name)
            }
        }

        impl core::fmt::Display for $type {
            fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                // With the width that is asked for.
                out.pad(self.name())
            }
        }

        #[cfg(feature = "user")]
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    };
}
pub(crate) use names;

#[cfg(test)]
mod tests {
    use crate::{Action, Cause, Mode, Protocol, Reason, Response};

    #[test]
    fn names_are_found_again_and_told_apart() {
        fn check<T: Copy + PartialEq + core::fmt::Debug>(
            all: &[T],
            name: impl Fn(T) -> &'static str,
            from_name: impl Fn(&str) -> Option<T>,
        ) {
            for one in all {
                assert_eq!(from_name(name(*one)), Some(*one), "{one:?}");
            }
            assert_eq!(from_name("another"), None);
        }
        check(&Reason::ALL, Reason::name, Reason::from_name);
        check(&Cause::ALL, Cause::name, Cause::from_name);
        check(&Mode::ALL, Mode::name, Mode::from_name);
        check(&Response::ALL, Response::name, Response::from_name);
        check(&Action::ALL, Action::name, Action::from_name);
        check(&Protocol::ALL, Protocol::name, Protocol::from_name);
        assert_eq!(Reason::ALL.map(|reason| reason as usize), [0, 1, 2, 3, 4, 5]);
    }
}
