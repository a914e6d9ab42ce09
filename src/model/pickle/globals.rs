//! Names in pickles: which have a meaning, which are kept opaque, which are refused.

use super::value::ElementType;
use crate::model::tensor::Dtype;

/// A class or function that a pickle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Global<'a> {
    /// `collections.OrderedDict` and its kin.
    Dict,
    /// `set`, `frozenset`, `list`, `tuple`, `torch.Size`: made from one sequence.
    Sequence,
    /// `torch._utils._rebuild_tensor`, `_v2`: storage, offset, sizes, strides and more.
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v3`: as above, with the element type at place 6.
    RebuildTyped,
    /// `torch._utils._rebuild_parameter` and `_with_state`: the tensor comes first.
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2`: a function and its arguments.
    RebuildFromType,
    /// A storage class.
    Storage(ElementType<'a>),
    /// `torch.float32` and so on.
    ElementType(ElementType<'a>),
    /// Any other: objects made with it are kept as their attributes.
    Opaque,
}

/// Standard modules that can run code, start processes, or reach files, the network, or other modules.
/// With the exceptions of [`HARMLESS`], no name of theirs belongs in a checkpoint.
const POWERFUL: [&str; 98] = [
    "__builtin__",
    "__builtins__",
    "_asyncio",
    "_bootsubprocess",
    "_codecs",
    "_compression",
    "_ctypes",
    "_frozen_importlib",
    "_frozen_importlib_external",
    "_functools",
    "_imp",
    "_io",
    "_operator",
    "_osx_support",
    "_pickle",
    "_posixshmem",
    "_posixsubprocess",
    "_pyio",
    "_pyrepl",
    "_sitebuiltins",
    "_socket",
    "_thread",
    "_winapi",
    "asyncio",
    "atexit",
    "bdb",
    "builtins",
    "cPickle",
    "cProfile",
    "cgitb",
    "cmd",
    "code",
    "codecs",
    "codeop",
    "commands",
    "compileall",
    "concurrent",
    "contextlib",
    "copy_reg",
    "copyreg",
    "ctypes",
    "dbm",
    "dill",
    "distutils",
    "doctest",
    "ensurepip",
    "fileinput",
    "ftplib",
    "functools",
    "gc",
    "http",
    "idlelib",
    "imp",
    "importlib",
    "inspect",
    "io",
    "itertools",
    "lib2to3",
    "linecache",
    "logging",
    "mailcap",
    "marshal",
    "mmap",
    "multiprocessing",
    "nt",
    "operator",
    "os",
    "pdb",
    "pickle",
    "pip",
    "pkgutil",
    "platform",
    "popen2",
    "posix",
    "profile",
    "pty",
    "pydoc",
    "runpy",
    "shelve",
    "shutil",
    "signal",
    "site",
    "smtplib",
    "socket",
    "socketserver",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "test",
    "threading",
    "timeit",
    "trace",
    "types",
    "urllib",
    "venv",
    "webbrowser",
    "zipimport",
];

/// Names of those modules that pickles of plain data do hold.
const HARMLESS: [(&str, &str); 12] = [
    ("builtins", "object"),
    ("builtins", "bytearray"),
    ("builtins", "complex"),
    ("builtins", "range"),
    ("builtins", "slice"),
    ("builtins", "int"),
    ("builtins", "float"),
    ("builtins", "bool"),
    ("builtins", "str"),
    ("_codecs", "encode"),
    ("copyreg", "_reconstructor"),
    ("types", "SimpleNamespace"),
];

/// The meaning of a name; `None` if it is refused.
pub(super) fn resolve<'a>(module: &'a str, name: &'a str) -> Option<Global<'a>> {
    // Protocol 2 spells the names of Python 2.
    let module = match module {
        "__builtin__" => "builtins",
        "copy_reg" => "copyreg",
        other => other,
    };
    let name = match (module, name) {
        ("builtins", "long") => "int",
        ("builtins", "unicode") => "str",
        ("builtins", "xrange") => "range",
        (_, other) => other,
    };
    Some(match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter") | ("builtins", "dict") => Global::Dict,
        ("builtins", "set" | "frozenset" | "list" | "tuple") | ("torch", "Size") => Global::Sequence,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTyped,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::RebuildParameter,
        ("torch._tensor", "_rebuild_from_type_v2") => Global::RebuildFromType,
        ("torch" | "torch.cuda" | "torch.storage", _) if name.ends_with("Storage") => Global::Storage(storage(name)),
        ("torch", _) if element_type(name).is_some() => Global::ElementType(element_type(name)?),
        pair if HARMLESS.contains(&pair) => Global::Opaque,
        _ if reaches_power(module, name) => return None,
        _ => Global::Opaque,
    })
}

/// Whether a name is in one of the powerful modules, directly or as an attribute of another module that
/// imports it (`pathlib` holds `os.system`).
fn reaches_power(module: &str, name: &str) -> bool {
    let owners = name.rsplit_once('.').map_or("", |(owners, _)| owners);
    let root = module.split('.').next().unwrap_or_default();
    POWERFUL.contains(&root) || owners.split('.').any(|owner| POWERFUL.contains(&owner) || owner.starts_with("__"))
}

fn storage(name: &str) -> ElementType<'_> {
    match name {
        "FloatStorage" => ElementType::Weight(Dtype::F32),
        "DoubleStorage" => ElementType::Weight(Dtype::F64),
        "HalfStorage" => ElementType::Weight(Dtype::F16),
        "BFloat16Storage" => ElementType::Weight(Dtype::BF16),
        "UntypedStorage" => ElementType::Untyped,
        other => ElementType::Other(other),
    }
}

fn element_type(name: &str) -> Option<ElementType<'_>> {
    const OTHERS: [&str; 15] = [
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "int8",
        "int16",
        "int32",
        "int64",
        "short",
        "int",
        "long",
        "bool",
        "complex32",
        "complex64",
        "complex128",
    ];
    Some(match name {
        "float32" | "float" => ElementType::Weight(Dtype::F32),
        "float64" | "double" => ElementType::Weight(Dtype::F64),
        "float16" | "half" => ElementType::Weight(Dtype::F16),
        "bfloat16" => ElementType::Weight(Dtype::BF16),
        _ if OTHERS.contains(&name) || name.starts_with("float8_") || name.starts_with("float4_") => {
            ElementType::Other(name)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood_kept_opaque_or_refused() {
        assert_eq!(resolve("collections", "OrderedDict"), Some(Global::Dict));
        assert_eq!(resolve("__builtin__", "set"), Some(Global::Sequence));
        assert_eq!(resolve("torch", "HalfStorage"), Some(Global::Storage(ElementType::Weight(Dtype::F16))));
        assert_eq!(resolve("torch", "LongStorage"), Some(Global::Storage(ElementType::Other("LongStorage"))));
        assert_eq!(resolve("torch", "bfloat16"), Some(Global::ElementType(ElementType::Weight(Dtype::BF16))));
        for (module, name) in [
            ("bdh", "BDHConfig"),
            ("__main__", "Config"),
            ("pathlib", "PosixPath"),
            ("torch", "device"),
            ("__builtin__", "long"),
            ("__builtin__", "unicode"),
            ("__builtin__", "xrange"),
        ] {
            assert_eq!(resolve(module, name), Some(Global::Opaque), "{module}.{name}");
        }
        for (module, name) in [
            ("os", "system"),
            ("os.path", "join"),
            ("posix", "system"),
            ("nt", "system"),
            ("builtins", "eval"),
            ("__builtin__", "eval"),
            ("builtins", "getattr"),
            ("subprocess", "Popen"),
            ("importlib", "import_module"),
            ("sys", "modules"),
            ("pathlib", "os.system"),
            ("torch", "serialization.os.system"),
            ("bdh", "Config.__init__.__globals__.update"),
        ] {
            assert_eq!(resolve(module, name), None, "{module}.{name}");
        }
        assert!(POWERFUL.is_sorted());
    }
}
