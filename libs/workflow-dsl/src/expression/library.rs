//! The functions that expressions can call.
//!
//! jaq's own definitions and native functions are the base, picked by name: what is not on the list does not exist,
//! so that a new release of jaq adds nothing unseen. Left out are functions that read or change the world (`env`,
//! `input`, `debug`, `halt` and their kin) and those whose time does not follow from the size of their input (`jn`,
//! `yn`). Replaced are those that could run without end or overflow the stack, and those that know jaq's own value
//! type. Definitions that call themselves are written so that each round passes `__step`, which spends and which no
//! assignment can pass: jaq's updates recurse on the stack, where a bound on steps is no bound on depth.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use jaq_core::box_iter::box_once;
use jaq_core::data::HasLut;
use jaq_core::load::parse::Def;
use jaq_core::native::{Fun, bome, run, unary, v};
use jaq_core::path::Opt;
use jaq_core::{DataT, Exn, Lut, Native, ValT, ValX, ValXs};
use jiff::Timestamp;

use super::budget;
use super::check;
use super::functions as f;
use super::value::Value;

type Error = jaq_core::Error<Value>;

/// What jaq is told about our evaluations.
pub(super) struct Kind;

impl DataT for Kind {
    type V<'a> = Value;
    type Data<'a> = Data<'a>;
}

/// What native functions can see besides their input.
#[derive(Clone)]
pub(super) struct Data<'a> {
    pub(super) lut: &'a Lut<Kind>,
    pub(super) now: Timestamp,
}

impl<'a> HasLut<'a, Kind> for Data<'a> {
    fn lut(&self) -> &'a Lut<Kind> {
        self.lut
    }
}

/// Functions of jaq's standard library that are as safe as they are; in order, for searching.
const PICKED: &[&str] = &[
    "acos",
    "acosh",
    "ascii_downcase",
    "ascii_upcase",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "copysign",
    "cos",
    "cosh",
    "decode_base64",
    "decode_uri",
    "encode_base64",
    "encode_uri",
    "endswith",
    "escape_html",
    "escape_sh",
    "exp",
    "exp10",
    "exp2",
    "explode",
    "expm1",
    "fabs",
    "fdim",
    "floor",
    "fma",
    "fmax",
    "fmin",
    "fmod",
    "frexp",
    "group_by",
    "hypot",
    "ilogb",
    "j0",
    "j1",
    "ldexp",
    "lgamma",
    "log",
    "log10",
    "log1p",
    "log2",
    "ltrim",
    "max_by_or_empty",
    "min_by_or_empty",
    "modf",
    "nearbyint",
    "nextafter",
    "pow",
    "remainder",
    "reverse",
    "rint",
    "round",
    "rtrim",
    "scalbln",
    "sin",
    "sinh",
    "sort",
    "sort_by",
    "sqrt",
    "startswith",
    "tan",
    "tanh",
    "tgamma",
    "trim",
    "trunc",
    "unescape_html",
    "utf8bytelength",
    "y0",
    "y1",
];

/// Functions of jaq's standard library that are called only behind a check.
const GUARDED: [(&str, &str); 3] = [
    ("matches", "__matches"),
    ("split_matches", "__split_matches"),
    ("split_", "__split_"),
];

/// What exists elsewhere and is missing here, with the reason.
pub(super) const ABSENT: &[(&str, &str)] = &[
    ("env", "expressions cannot read the environment"),
    ("input", "there is one input, '.'"),
    ("inputs", "there is one input, '.'"),
    ("debug", "expressions have no effects"),
    ("stderr", "expressions have no effects"),
    ("halt", "expressions have no effects; use 'error' or a raise task"),
    (
        "halt_error",
        "expressions have no effects; use 'error' or a raise task",
    ),
    ("input_filename", "expressions cannot read files"),
    ("input_line_number", "expressions cannot read files"),
    ("get_search_list", "expressions cannot read files"),
    ("getpath_file", "expressions cannot read files"),
];

/// One definition written in jq.
pub(super) struct Entry {
    pub(super) definition: Def<&'static str>,
    /// How deep evaluating it nests.
    pub(super) depth: u32,
    /// Whether evaluating it may recurse as deep as a value is nested.
    pub(super) recursive: bool,
    /// What it needs; the definitions are all before it.
    pub(super) needs: Needs,
}

/// What something calls, and what that calls in turn, by position.
pub(super) struct Needs {
    /// Among [`Library::entries`].
    pub(super) definitions: BTreeSet<usize>,
    /// Among all that [`natives`] makes.
    pub(super) natives: BTreeSet<usize>,
}

impl Needs {
    /// What the ticks need that [`check`] puts in.
    pub(super) fn of_ticks(library: &Library) -> Self {
        let ticks = ["__tick", "__step"].iter();
        Self {
            definitions: BTreeSet::new(),
            natives: ticks
                .filter_map(|name| library.natives.get(&(*name, 0)))
                .copied()
                .collect(),
        }
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.definitions.extend(&other.definitions);
        self.natives.extend(&other.natives);
    }
}

/// All that can be called.
pub(super) struct Library {
    pub(super) entries: Vec<Entry>,
    by_name: HashMap<(&'static str, usize), usize>,
    natives: HashMap<(&'static str, usize), usize>,
}

/// What a name means.
pub(super) enum Found {
    Definition(usize),
    Native(usize),
}

impl Library {
    pub(super) fn find(&self, name: &str, arity: usize) -> Option<Found> {
        // The maps are keyed by static names; a lookup by a shorter-lived name is a lookup by its text.
        if let Some(position) = self.by_name.get(&(name, arity)) {
            return Some(Found::Definition(*position));
        }
        let position = self.natives.get(&(name, arity))?;
        Some(Found::Native(*position))
    }

    /// The names an author may write.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        let all = self
            .by_name
            .keys()
            .chain(self.natives.keys())
            .map(|(name, _)| *name);
        all.filter(|name| !name.starts_with("__"))
    }

    /// The numbers of arguments with which `name` can be called.
    pub(super) fn arities(&self, name: &str) -> BTreeSet<usize> {
        let all = self.by_name.keys().chain(self.natives.keys());
        all.filter(|(known, _)| *known == name)
            .map(|(_, arity)| *arity)
            .collect()
    }
}

/// The library, prepared once.
pub(super) static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let natives = natives();
    let names = natives
        .iter()
        .map(|(name, arguments, _)| (*name, arguments.len()));
    let mut library = Library {
        entries: Vec::new(),
        by_name: HashMap::new(),
        natives: names.zip(0..).collect(),
    };
    let own = |text: &'static str| jaq_core::load::parse(text, |parser| parser.defs()).unwrap_or_default();
    let (early, late) = (own(include_str!("early.jq")), own(include_str!("late.jq")));
    let signature = |definition: &Def<&'static str>| (definition.name, definition.args.len());
    let replaced: BTreeSet<_> = early.iter().chain(&late).map(signature).collect();
    let theirs = jaq_core::defs().chain(jaq_std::defs());
    let theirs = theirs.filter(|definition| {
        !replaced.contains(&signature(definition)) && !library.natives.contains_key(&signature(definition))
    });
    let definitions: Vec<_> = early.into_iter().chain(theirs).chain(late).collect();
    for definition in definitions {
        let signature = signature(&definition);
        // A definition that needs what is left out is left out with it.
        if let Ok(entry) = check::definition(definition, &library) {
            library.by_name.insert(signature, library.entries.len());
            library.entries.push(entry);
        }
    }
    library
});

/// The native functions at these positions. A program holds what it is given: all of them would be most of its memory.
pub(super) fn natives_at(positions: &BTreeSet<usize>) -> Vec<Fun<Kind>> {
    let all = natives().into_iter().enumerate();
    let needed = all.filter(|(position, _)| positions.contains(position));
    let mut needed: Vec<_> = needed.map(|(_, native)| native).collect();
    // The room for all of them is kept otherwise, and jaq keeps it on.
    needed.shrink_to_fit();
    needed
}

/// All native functions, always in this order.
fn natives() -> Vec<Fun<Kind>> {
    let core = jaq_core::funs::<Kind>().filter(|(name, ..)| *name != "range");
    let standard = jaq_std::funs::<Kind>().filter_map(|(name, arguments, function)| {
        if PICKED.binary_search(&name).is_ok() {
            return Some((name, arguments, function));
        }
        let (_, guarded) = GUARDED.iter().find(|(known, _)| *known == name)?;
        Some((*guarded, arguments, function))
    });
    let mut all: Vec<Fun<Kind>> = core.chain(standard).collect();
    all.extend([
        ("__tick", v(0), tick()),
        ("__step", v(0), step()),
        ("getpath", v(1), getpath()),
    ]);
    all.extend(plain().into_iter().chain(with_argument()).chain(times()));
    all
}

fn halt<'a, T: 'a>() -> ValXs<'a, T, Value> {
    box_once(Err(Exn::halt(0)))
}

/// Spends a step and passes its input on. When there is nothing left to spend it ends the evaluation by the one
/// exception that `try` does not catch.
fn tick() -> Native<Kind> {
    step().with_update(|cv, change| if budget::spend(1) { change(cv.1) } else { halt() })
}

/// The same, but nothing to the right of it can be assigned to. Also bounds the length of paths.
fn step() -> Native<Kind> {
    let native = Native::<Kind>::new(|cv| {
        if budget::spend(1) {
            box_once(Ok(cv.1))
        } else {
            halt()
        }
    });
    native.with_paths(|cv| {
        if cv.1.1.iter().nth(budget::DEPTH as usize).is_some() {
            budget::exceed(budget::Exceeded::Depth);
        }
        if budget::spend(1) {
            box_once(Ok(cv.1))
        } else {
            halt()
        }
    })
}

/// The keys of a path; longer ones than a value can be deep lead nowhere.
fn keys(path: &Value) -> Result<Vec<Value>, Error> {
    match path {
        Value::Array(keys) if keys.items().len() <= budget::DEPTH as usize => Ok(keys.items().to_vec()),
        Value::Array(_) => Err(Error::str(format!("a path has at most {} keys", budget::DEPTH))),
        other => Err(Error::typ(other.clone(), "array")),
    }
}

fn getpath() -> Native<Kind> {
    let native = Native::<Kind>::new(|cv| {
        unary(cv, |value, path| {
            keys(&path)?.iter().try_fold(value, |value, key| value.index(key))
        })
    });
    let native = native.with_paths(|mut cv| {
        let path = cv.0.pop_var();
        let (value, prefix) = cv.1;
        let found = keys(&path).and_then(|keys| {
            keys.into_iter()
                .try_fold((value, prefix), |(value, prefix), key| {
                    Ok((value.index(&key)?, prefix.cons(key)))
                })
        });
        box_once(found.map_err(Exn::from))
    });
    native.with_update(|mut cv, change| {
        let path = cv.0.pop_var();
        match keys(&path) {
            Err(error) => box_once(Err(Exn::from(error))),
            Ok(keys) if keys.is_empty() => change(cv.1),
            Ok(keys) => box_once(update(cv.1, &keys, &|value| change(value).next())),
        }
    })
}

/// Changes what is at the end of the path; bounded by [`keys`].
fn update<'a>(
    value: Value,
    keys: &[Value],
    change: &dyn Fn(Value) -> Option<ValX<'a, Value>>,
) -> ValX<'a, Value> {
    match keys {
        [] => Ok(value),
        [last] => value.map_index(last, Opt::Essential, |value| change(value).into_iter()),
        [first, rest @ ..] => value.map_index(first, Opt::Essential, |value| {
            std::iter::once(update(value, rest, change))
        }),
    }
}

/// Functions of their input alone.
fn plain() -> Vec<Fun<Kind>> {
    macro_rules! plain {
        ($($name:literal => $function:expr),* $(,)?) => {
            vec![$(run(($name, v(0), |cv| bome($function(cv.1))))),*]
        };
    }
    plain![
        "length" => f::length,
        "keys" => f::keys,
        "type" => |value: Value| Ok(Value::text(value.type_name().to_owned())),
        "tojson" => |value: Value| Ok(Value::text(value.to_json_text())),
        "fromjson" => f::fromjson,
        "tonumber" => f::tonumber,
        "implode" => f::implode,
        "flatten" => |value| f::flatten(value, i64::MAX),
        "__base32" => f::base32,
        "nan" => |_| Ok(Value::Float(f64::NAN)),
        "infinite" => |_| Ok(Value::Float(f64::INFINITY)),
        "isnan" => |value: Value| Ok(Value::Bool(value.number().is_some_and(f64::is_nan))),
        "isinfinite" => |value: Value| Ok(Value::Bool(value.number().is_some_and(f64::is_infinite))),
        "isstring" => |value: Value| Ok(Value::Bool(matches!(value, Value::Text(_)))),
        "isarray" => |value: Value| Ok(Value::Bool(matches!(value, Value::Array(_)))),
        "isobject" => |value: Value| Ok(Value::Bool(matches!(value, Value::Object(_)))),
        "isboolean" => |value: Value| Ok(Value::Bool(matches!(value, Value::Bool(_)))),
        "isnumber" => |value: Value| Ok(Value::Bool(value.number().is_some())),
    ]
}

/// Functions of their input and one argument.
fn with_argument() -> Vec<Fun<Kind>> {
    macro_rules! with_argument {
        ($($name:literal => $function:expr),* $(,)?) => {
            vec![$(run(($name, v(1), |cv| unary(cv, $function)))),*]
        };
    }
    let mut all = with_argument![
        "has" => f::has,
        "contains" => |value: Value, part: Value| Ok(Value::Bool(f::contains(&value, &part))),
        "indices" => |value: Value, wanted: Value| value.indices(&wanted),
        "join" => f::join,
        "ltrimstr" => f::without_start,
        "rtrimstr" => f::without_end,
        "bsearch" => f::position,
        "flatten" => |value: Value, depth: Value| f::flatten(value, depth.whole().unwrap_or(0)),
        "__pattern" => f::check_pattern,
    ];
    all.push(run(("range", v(3), |mut cv| {
        let (by, to, from) = (cv.0.pop_var(), cv.0.pop_var(), cv.0.pop_var());
        f::range(from, to, by)
    })));
    all
}

/// Functions about time.
fn times() -> Vec<Fun<Kind>> {
    use super::calendar as c;
    vec![
        run(("now", v(0), |cv| bome(Ok(c::seconds(cv.0.data().now))))),
        run(("gmtime", v(0), |cv| bome(c::gmtime(&cv.1)))),
        run(("mktime", v(0), |cv| bome(c::mktime(&cv.1)))),
        run(("todateiso8601", v(0), |cv| bome(c::to_iso8601(&cv.1)))),
        run(("fromdateiso8601", v(0), |cv| bome(c::from_iso8601(&cv.1)))),
        run(("strftime", v(1), |cv| {
            unary(cv, |value, format| c::strftime(&value, &format))
        })),
        run(("strptime", v(1), |cv| {
            unary(cv, |value, format| c::strptime(&value, &format))
        })),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_definitions_are_all_there() {
        let count = include_str!("early.jq")
            .lines()
            .filter(|line| line.starts_with("def "))
            .count();
        assert!(LIBRARY.entries.len() > count);
        for (name, arity) in [
            ("until", 2),
            ("recurse", 1),
            ("with_entries", 1),
            ("@csv", 0),
            ("test", 1),
            ("gsub", 2),
        ] {
            assert!(
                matches!(LIBRARY.find(name, arity), Some(Found::Definition(_))),
                "{name}/{arity}"
            );
        }
        for (name, arity) in [
            ("length", 0),
            ("range", 3),
            ("now", 0),
            ("strptime", 1),
            ("getpath", 1),
        ] {
            assert!(
                matches!(LIBRARY.find(name, arity), Some(Found::Native(_))),
                "{name}/{arity}"
            );
        }
    }

    #[test]
    fn each_native_function_is_there_once() {
        let count = natives().len();
        assert_eq!(LIBRARY.natives.len(), count, "jaq takes the first, we the last");
    }

    #[test]
    fn what_touches_the_world_is_not_there() {
        for (name, _) in ABSENT {
            assert!(LIBRARY.arities(name).is_empty(), "{name}");
        }
        assert!(PICKED.is_sorted());
        for name in PICKED {
            assert!(!LIBRARY.arities(name).is_empty(), "jaq has no {name}");
        }
    }
}
