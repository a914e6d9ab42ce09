//! From rows to structures.

/// Makes structures of the rows in `table.rs`, each `name: type = default => { fields of Spec }`
/// below the documentation of the field.
///
/// `SamplingOptions` gets the rows of the first block as fields, `Request` those of both blocks, as
/// `Option`s. `specs` holds the `Spec` of each row under its name, `OPTIONS` all of them, and
/// `defaults` the defaults with their types.
macro_rules! options {
    (
        SamplingOptions {
            $($(#[$sampling_doc:meta])* $sampling:ident: $sampling_type:ty = $sampling_default:expr => {
                $($sampling_row:tt)*
            })*
        }
        others {
            $($(#[$other_doc:meta])* $other:ident: $other_type:ty $(= $other_default:expr)? => {
                $($other_row:tt)*
            })*
        }
    ) => {
        /// How the next token is chosen from the logits.
        ///
        /// The order is: penalties, bans, temperature, top-k, top-p, min-p, draw. The default draws
        /// from the model's own distribution, unchanged.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct SamplingOptions {
            $($(#[$sampling_doc])* pub $sampling: $sampling_type,)*
        }

        impl SamplingOptions {
            /// The built-in values.
            pub const DEFAULT: Self = Self { $($sampling: $sampling_default,)* };

            /// Takes over what is asked for.
            pub fn apply(&mut self, request: &Request) {
                $(self.$sampling = request.$sampling.unwrap_or(self.$sampling);)*
            }

            /// The request that asks for exactly these options.
            pub fn request(&self) -> Request {
                Request { $($sampling: Some(self.$sampling),)* ..Request::default() }
            }
        }

        impl Default for SamplingOptions {
            fn default() -> Self {
                Self::DEFAULT
            }
        }

        /// What a caller or a model's file asks for; `None` leaves an option to the model, or to
        /// its default.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Request {
            $($(#[$sampling_doc])* pub $sampling: Option<$sampling_type>,)*
            $($(#[$other_doc])* pub $other: Option<$other_type>,)*
        }

        /// Every option's row, under its name.
        #[allow(non_upper_case_globals, reason = "the options' names")]
        pub mod specs {
            use super::*;

            $(
                $(#[$sampling_doc])*
                pub static $sampling: Spec = options!(@spec $sampling $sampling_type { $($sampling_row)* }
                    Some(OptionType::to_value(&defaults::$sampling)));
            )*
            $(
                $(#[$other_doc])*
                pub static $other: Spec = options!(@spec $other $other_type { $($other_row)* }
                    options!(@default $($other_default, defaults::$other)?));
            )*
        }

        /// The built-in values, under the options' names.
        #[allow(non_upper_case_globals, reason = "the options' names")]
        pub mod defaults {
            use super::*;

            $(options!(@constant $sampling $sampling_type, $sampling_default);)*
            $($(options!(@constant $other $other_type, $other_default);)?)*
        }

        /// Number of rows.
        const COUNT: usize = [$(stringify!($sampling),)* $(stringify!($other),)*].len();

        /// Every option, in the order of the table.
        pub static OPTIONS: [&Spec; COUNT] = [$(&specs::$sampling,)* $(&specs::$other,)*];
    };

    (@spec $name:ident $type:ty { $($row:tt)* } $default:expr) => {
        Spec {
            name: stringify!($name),
            kind: <$type as OptionType>::KIND,
            default: || $default,
            given: |request| request.$name.as_ref().map(OptionType::to_value),
            give: |request, value| {
                request.$name = Some(OptionType::from_value(value)?);
                Some(())
            },
            $($row)*
            ..Spec::ROW
        }
    };

    (@constant $name:ident $type:ty, $default:expr) => {
        #[doc = concat!("Default of `", stringify!($name), "`.")]
        pub const $name: $type = $default;
    };

    (@default) => { None };
    (@default $default:expr, $name:expr) => { Some(OptionType::to_value(&$name)) };
}
pub(super) use options;
