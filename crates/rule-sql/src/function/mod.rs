//! The functions of the language: one row each. A new function is a new row.

mod cast;
mod coding;
mod collection;
mod math;
mod origin;
mod text;

use std::ops::RangeInclusive;

pub use cast::Cast;

use crate::ast::Prepared;
use crate::evaluate::Answer;
use crate::message::Message;
use crate::number::Number;
use crate::parser::group::is_word_of_groups;
use crate::time;
use crate::value::{Held, Value};

/// One function. Names are found in any case; `arity` is checked when the rule is parsed.
pub struct Function {
    pub name: &'static str,
    pub arity: RangeInclusive<usize>,
    body: Body,
}

/// One call, its arguments evaluated.
pub(crate) struct Call<'s, 'm, 'p> {
    pub message: &'m Message<'p>,
    pub arguments: &'s [Held<'m>],
    /// Arguments that were compiled with the rule.
    pub prepared: Option<&'m Prepared>,
    /// The first argument is the payload as it came.
    pub raw: bool,
}

/// Arguments of a kind a function is not made for give an undefined value.
enum Body {
    /// Of one number; texts that read as numbers are numbers.
    Number(fn(Number) -> Option<Number>),
    Numbers(fn(Number, Number) -> Option<Number>),
    /// Of one double; what is not finite is undefined.
    Double(fn(f64) -> f64),
    Doubles(fn(f64, f64) -> f64),
    /// Makes a value of its arguments alone.
    Values(fn(&[Held<'_>]) -> Answer<'static>),
    Call(for<'s, 'm, 'p> fn(&Call<'s, 'm, 'p>) -> Answer<'m>),
    /// Evaluates its arguments one after the other, and forgives errors.
    Fallback,
}

use Body::{Call as Of, Double, Doubles, Fallback, Number as OfNumber, Numbers, Values};

const fn row(name: &'static str, arity: RangeInclusive<usize>, body: Body) -> Function {
    Function { name, arity, body }
}

/// Most arguments of a function that takes any number.
const ARGUMENTS_MAX: usize = 1_000;

static TABLE: [Function; 78] = [
    row("abs", 1..=1, OfNumber(math::abs)),
    row("accountid", 0..=0, Of(origin::account_id)),
    row("acos", 1..=1, Double(f64::acos)),
    row("asin", 1..=1, Double(f64::asin)),
    row("atan", 1..=1, Double(f64::atan)),
    row("atan2", 2..=2, Doubles(f64::atan2)),
    row("bitand", 2..=2, Numbers(math::bit_and)),
    row("bitnot", 1..=1, OfNumber(math::bit_not)),
    row("bitor", 2..=2, Numbers(math::bit_or)),
    row("bitxor", 2..=2, Numbers(math::bit_xor)),
    row("bytes", 1..=2, Of(coding::bytes)),
    row("ceil", 1..=1, OfNumber(math::ceil)),
    row("chr", 1..=1, Values(text::chr)),
    row("clientid", 0..=0, Of(origin::client_id)),
    row("concat", 0..=ARGUMENTS_MAX, Of(collection::concat)),
    row("cos", 1..=1, Double(f64::cos)),
    row("cosh", 1..=1, Double(f64::cosh)),
    row("decode", 2..=6, Of(coding::decode)),
    row("device", 0..=0, Of(origin::device)),
    row("encode", 2..=2, Of(coding::encode)),
    row("endswith", 2..=2, Values(text::ends_with)),
    row("exp", 1..=1, Double(f64::exp)),
    row("floor", 1..=1, OfNumber(math::floor)),
    row("get", 2..=2, Of(collection::get)),
    row("get_mqtt_property", 1..=1, Of(origin::mqtt_property)),
    row("get_or_default", 1..=2, Fallback),
    row("get_thing_shadow", 1..=3, Of(origin::thing_shadow)),
    row("get_user_properties", 0..=1, Of(origin::user_properties)),
    row("indexof", 2..=2, Values(text::index_of)),
    row("isnull", 1..=1, Values(collection::is_null)),
    row("isundefined", 1..=1, Values(collection::is_undefined)),
    row("length", 1..=1, Values(text::length)),
    row("ln", 1..=1, Double(f64::ln)),
    row("log", 1..=1, Double(f64::log10)),
    row("lower", 1..=1, Values(text::lower)),
    row("lpad", 2..=2, Values(text::pad_left)),
    row("ltrim", 1..=1, Values(text::trim_left)),
    row("md2", 1..=1, Values(coding::hash::<md2::Md2>)),
    row("md5", 1..=1, Values(coding::hash::<md5::Md5>)),
    row("mod", 2..=2, Numbers(Number::remainder)),
    row("nanvl", 2..=2, Of(collection::nanvl)),
    row("newuuid", 0..=0, Of(origin::new_uuid)),
    row("numbytes", 1..=1, Values(text::num_bytes)),
    row("parse_time", 2..=3, Values(time::parse_time)),
    row("power", 2..=2, Doubles(f64::powf)),
    row("principal", 0..=0, Of(origin::principal)),
    row("rand", 0..=0, Of(origin::rand)),
    row("regexp_matches", 2..=2, Of(text::regexp_matches)),
    row("regexp_replace", 3..=3, Of(text::regexp_replace)),
    row("regexp_substr", 2..=2, Of(text::regexp_substr)),
    row("remainder", 2..=2, Numbers(Number::remainder)),
    row("replace", 3..=3, Values(text::replace)),
    row("round", 1..=1, OfNumber(math::round)),
    row("rpad", 2..=2, Values(text::pad_right)),
    row("rtrim", 1..=1, Values(text::trim_right)),
    row("sha1", 1..=1, Values(coding::hash::<sha1::Sha1>)),
    row("sha224", 1..=1, Values(coding::hash::<sha2::Sha224>)),
    row("sha256", 1..=1, Values(coding::hash::<sha2::Sha256>)),
    row("sha384", 1..=1, Values(coding::hash::<sha2::Sha384>)),
    row("sha512", 1..=1, Values(coding::hash::<sha2::Sha512>)),
    row("sign", 1..=1, OfNumber(math::sign)),
    row("sin", 1..=1, Double(f64::sin)),
    row("sinh", 1..=1, Double(f64::sinh)),
    row("sourceip", 0..=0, Of(origin::source_ip)),
    row("sql_version", 0..=0, Of(origin::sql_version)),
    row("sqrt", 1..=1, Double(f64::sqrt)),
    row("startswith", 2..=2, Values(text::starts_with)),
    row("substring", 2..=3, Values(text::substring)),
    row("tan", 1..=1, Double(f64::tan)),
    row("tanh", 1..=1, Double(f64::tanh)),
    row("time_to_epoch", 2..=2, Values(time::time_to_epoch)),
    row("timestamp", 0..=0, Of(origin::timestamp)),
    row("topic", 0..=1, Of(origin::topic)),
    row("traceid", 0..=0, Of(origin::trace_id)),
    row("transform", 3..=3, Of(collection::transform)),
    row("trim", 1..=1, Values(text::trim)),
    row("trunc", 2..=2, Numbers(math::trunc)),
    row("upper", 1..=1, Values(text::upper)),
];

/// Functions about the message itself, its id included; where there are many messages they mean nothing.
const OF_MESSAGE: [&str; 13] = [
    "accountid",
    "clientid",
    "device",
    "get_mqtt_property",
    "get_thing_shadow",
    "get_user_properties",
    "newuuid",
    "principal",
    "rand",
    "sourceip",
    "timestamp",
    "topic",
    "traceid",
];

/// Functions of the reference that ask a service of its own cloud, and what there is instead.
const ELSEWHERE: [(&str, &str); 5] = [
    ("aws_lambda", "register a function"),
    ("get_dynamodb", "the registry has device()"),
    ("get_registry_data", "the registry has device()"),
    ("get_secret", "actions take secrets by reference"),
    ("machinelearning_predict", "register a function"),
];

/// Whether the language itself has a function of this name, or something else that is written like one, or refuses it.
pub fn is_built_in(name: &str) -> bool {
    let special = ["cast", "exists"].iter().any(|special| special.eq_ignore_ascii_case(name));
    special || is_word_of_groups(name) || Function::named(name).is_some() || Function::elsewhere(name).is_some()
}

impl Function {
    /// The function of this name, in any case.
    pub(crate) fn named(name: &str) -> Option<&'static Function> {
        TABLE.iter().find(|function| function.name.eq_ignore_ascii_case(name))
    }

    /// The name of a function that another cloud has, and what there is instead.
    pub(crate) fn elsewhere(name: &str) -> Option<(&'static str, &'static str)> {
        ELSEWHERE.iter().find(|(function, _)| function.eq_ignore_ascii_case(name)).copied()
    }

    /// Which argument is a regular expression, if one is.
    pub(crate) fn pattern_argument(&self) -> Option<usize> {
        self.name.starts_with("regexp_").then_some(1)
    }

    /// Which argument names a scheme whose schema stands behind it, if one does.
    pub(crate) fn scheme_argument(&self) -> Option<usize> {
        (self.name == "decode").then_some(1)
    }

    /// Whether `*` as its first argument means the payload's bytes, JSON or not.
    pub(crate) fn takes_bytes(&self, prepared: Option<&Prepared>) -> bool {
        matches!(self.name, "encode" | "bytes") || matches!(prepared, Some(Prepared::Format(_)))
    }

    /// Whether it is about the one message that is evaluated.
    pub(crate) fn is_of_message(&self) -> bool {
        OF_MESSAGE.contains(&self.name)
    }

    /// Whether it evaluates its arguments itself.
    pub(crate) fn is_fallback(&self) -> bool {
        matches!(self.body, Fallback)
    }

    pub(crate) fn call<'m>(&self, call: &Call<'_, 'm, '_>) -> Answer<'m> {
        let number = |i: usize| call.arguments[i].to_number();
        let double = |i: usize| number(i).and_then(Number::to_f64);
        let made = |number: Option<Number>| Ok(Held::Made(Value::from(number)));
        match self.body {
            OfNumber(f) => made(number(0).and_then(f)),
            Numbers(f) => made(number(0).zip(number(1)).and_then(|(a, b)| f(a, b))),
            Double(f) => made(double(0).map(f).and_then(Number::from_f64)),
            Doubles(f) => made(double(0).zip(double(1)).and_then(|(a, b)| Number::from_f64(f(a, b)))),
            Values(f) => f(call.arguments),
            Of(f) => f(call),
            // Evaluated before it came to a call.
            Fallback => made(None),
        }
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
