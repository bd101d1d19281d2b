//! One message through one tree.

use crate::ast::{Expr, Item, Select, Statement};
use crate::error::EvalError;
use crate::function::Call;
use crate::message::Message;
use crate::nested::{self, Frame};
use crate::operator;
use crate::row::{Members, Row, Shape};
use crate::user_function;
use crate::value::{Held, Value};

/// Deepest value of a variable: variables of variables must not nest without bound.
const VARIABLE_DEPTH_MAX: usize = crate::json::DEPTH_MAX;

/// A value that borrows from the message or the rule if it can.
pub(crate) type Answer<'m> = Result<Held<'m>, EvalError>;
/// What SET made.
pub(crate) type Variable<'m> = (&'m str, Value<'static>);

pub(crate) fn undefined<'m>() -> Answer<'m> {
    Ok(Held::Made(Value::Undefined))
}

pub(crate) fn made(value: impl Into<Value<'static>>) -> Answer<'static> {
    Ok(Held::Made(value.into()))
}

/// Where names are looked up.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'v, 'm, 'p> {
    pub message: &'m Message<'p>,
    pub variables: &'v [Variable<'m>],
    /// Asked before the payload, if there is one.
    pub row: Option<&'m Row<'m>>,
    /// The element that a nested query is at.
    pub frame: Option<&'m Frame<'m>>,
}

impl<'v, 'm, 'p> Scope<'v, 'm, 'p> {
    /// Of a whole statement.
    pub fn new(message: &'m Message<'p>, variables: &'v [Variable<'m>]) -> Self {
        Self { message, variables, row: None, frame: None }
    }
}

/// What SET makes, each in sight of those before it.
pub(crate) fn variables<'m>(
    statement: &'m Statement,
    message: &'m Message<'_>,
) -> Result<Vec<Variable<'m>>, EvalError> {
    let mut variables = Vec::with_capacity(statement.variables.len());
    for (name, expr) in &statement.variables {
        let value = evaluate(expr, Scope::new(message, &variables))?.into_value().into_owned();
        if value.depth() > VARIABLE_DEPTH_MAX {
            return Err(EvalError::VariableTooDeep { name: name.clone(), limit: VARIABLE_DEPTH_MAX });
        }
        message.charge(value.weight())?;
        variables.push((name.as_str(), value));
    }
    Ok(variables)
}

/// What `select` makes of the message, or of the element a nested query is at.
pub(crate) fn shape<'m>(select: &'m Select, scope: Scope<'_, 'm, '_>) -> Result<Shape<'m>, EvalError> {
    match select {
        Select::Payload => match scope.frame {
            None => Ok(Shape::Payload(scope.message.payload())),
            Some(frame) => Ok(Shape::Value(Held::Lent(frame.element))),
        },
        Select::Value(expr) => Ok(Shape::Value(evaluate(expr, scope)?)),
        Select::Items(items) => {
            let mut members = Members::with_room_for(items.len());
            for item in items {
                add(item, scope, &mut members)?;
            }
            Ok(Shape::Object(members.in_order()))
        }
    }
}

/// Adds one item of a list.
fn add<'m>(item: &'m Item, scope: Scope<'_, 'm, '_>, members: &mut Members<'m>) -> Result<(), EvalError> {
    match item {
        Item::Named { expr, name, under } => {
            let value = evaluate(expr, scope)?;
            scope.message.charge(name.len() + value.weight())?;
            if under.is_empty() {
                members.put(name, value);
            } else if *value != Value::Undefined {
                scope.message.charge(under.iter().map(String::len).sum())?;
                let looked_at = members.put_under(name, under, value.into_value());
                scope.message.charge(looked_at)?;
            }
        }
        Item::Star => {
            for (name, value) in star(scope)? {
                scope.message.charge(name.len() + value.weight())?;
                members.put(name, value);
            }
        }
    }
    Ok(())
}

/// Every member of the payload, or of the element a nested query is at. An empty payload has none.
fn star<'m>(scope: Scope<'_, 'm, '_>) -> Result<Vec<(&'m str, Held<'m>)>, EvalError> {
    let lent = |(name, value): (&'m str, &'m Value<'m>)| (name, Held::Lent(value));
    match scope.frame.map(|frame| frame.element) {
        Some(Value::Object(members)) => Ok(members.iter().map(|(name, value)| lent((name.as_ref(), value))).collect()),
        Some(_) => Err(EvalError::NotAnObject),
        None if scope.message.payload().is_empty() => Ok(Vec::new()),
        None => {
            let members = scope.message.document()?.members().ok_or(EvalError::NotAnObject)?;
            Ok(members.map(|(name, value)| (name, Held::Lent(value))).collect())
        }
    }
}

/// The value of `expr`.
pub(crate) fn evaluate<'m>(expr: &'m Expr, scope: Scope<'_, 'm, '_>) -> Answer<'m> {
    match expr {
        Expr::Literal(value) => Ok(Held::Lent(value)),
        Expr::Star => match scope.frame {
            Some(frame) => Ok(Held::Lent(frame.element)),
            None => Ok(Held::Lent(scope.message.whole()?)),
        },
        Expr::Field(name) => field(name, scope),
        Expr::Variable(_) | Expr::Member { .. } => path(expr, scope),
        Expr::Array(elements) => array(elements, scope),
        Expr::Object(members) => object(members, scope),
        Expr::Unary { operator, operand } => Ok(Held::Made(operator::unary(*operator, &*evaluate(operand, scope)?))),
        Expr::Binary { operator, left, right } => {
            let (left, right) = (evaluate(left, scope)?, evaluate(right, scope)?);
            operator::binary(*operator, &left, &right, scope.message).map(Held::Made)
        }
        Expr::Case { of, arms, otherwise } => case(of.as_deref(), arms, otherwise.as_deref(), scope),
        Expr::Query(query) => nested::results(query, scope).map(Held::Made),
        Expr::Exists(query) => Ok(Held::Made(Value::Bool(nested::exists(query, scope)?))),
        Expr::Cast { operand, to } => Ok(Held::Made(to.of(&*evaluate(operand, scope)?))),
        Expr::Call { function, arguments, prepared } => {
            if function.is_fallback() {
                return fallback(arguments, scope);
            }
            let prepared = prepared.as_ref();
            let takes_bytes = scope.frame.is_none() && function.takes_bytes(prepared);
            let mut values = Vec::with_capacity(arguments.len());
            for argument in arguments {
                // Bytes need not be JSON: some functions look at them as they are.
                values.push(match argument {
                    Expr::Star if takes_bytes => Held::Made(Value::Undefined),
                    argument => evaluate(argument, scope)?,
                });
            }
            let raw = takes_bytes && matches!(arguments[..], [Expr::Star, ..]);
            function.call(&Call { message: scope.message, arguments: &values, prepared, raw })
        }
        Expr::UserCall { function, arguments } => user_function::call(function, arguments, scope),
        // A window's plan has names of results in their place.
        Expr::Aggregate(_) | Expr::Bound(_) => undefined(),
    }
}

/// `get_or_default(value, default)`: a value that fails counts as none.
fn fallback<'m>(arguments: &'m [Expr], scope: Scope<'_, 'm, '_>) -> Answer<'m> {
    let value = evaluate(&arguments[0], scope);
    match (value, arguments.get(1)) {
        (Ok(value), _) if !matches!(*value, Value::Undefined | Value::Null) => Ok(value),
        (Err(error @ (EvalError::GrowsTooMuch { .. } | EvalError::TooManyCalls { .. })), _) => Err(error),
        (_, Some(default)) => evaluate(default, scope),
        (_, None) => undefined(),
    }
}

fn field<'m>(name: &'m str, scope: Scope<'_, 'm, '_>) -> Answer<'m> {
    if let Some(frame) = scope.frame {
        match frame.find(name) {
            Some(value) => return Ok(Held::Lent(value)),
            None if !frame.sees_outside() => return undefined(),
            None => {}
        }
    }
    let in_row = scope.row.and_then(|row| row.member(name)).filter(|value| **value != Value::Undefined);
    match in_row {
        Some(value) => Ok(Held::Lent(value)),
        None => scope.message.document()?.member(name).map_or(undefined(), |value| Ok(Held::Lent(value))),
    }
}

/// A variable, or a member of anything; of a variable only the part that is asked for is copied.
fn path<'m>(expr: &'m Expr, scope: Scope<'_, 'm, '_>) -> Answer<'m> {
    if let Some(value) = of_variable(expr, scope.variables) {
        scope.message.charge(value.weight())?;
        return Ok(Held::Made(value.clone()));
    }
    match expr {
        Expr::Member { of, name } => {
            let of = evaluate(of, scope)?;
            Ok(of.part(|value| value.member(name)))
        }
        _ => undefined(),
    }
}

fn of_variable<'v>(expr: &Expr, variables: &'v [Variable<'_>]) -> Option<&'v Value<'static>> {
    match expr {
        Expr::Variable(name) => variables.iter().find(|(variable, _)| variable == name).map(|(_, value)| value),
        Expr::Member { of, name } => of_variable(of, variables)?.member(name),
        _ => None,
    }
}

/// Elements that are undefined are left out, as they are on output.
fn array<'m>(elements: &'m [Expr], scope: Scope<'_, 'm, '_>) -> Answer<'m> {
    let mut values = Vec::with_capacity(elements.len());
    for element in elements {
        let value = evaluate(element, scope)?;
        scope.message.charge(value.weight())?;
        if *value != Value::Undefined {
            values.push(value.into_value());
        }
    }
    Ok(Held::Made(Value::Array(values)))
}

fn object<'m>(members: &'m [(String, Expr)], scope: Scope<'_, 'm, '_>) -> Answer<'m> {
    let mut values = Vec::with_capacity(members.len());
    for (name, member) in members {
        let value = evaluate(member, scope)?;
        scope.message.charge(name.len() + value.weight())?;
        if *value != Value::Undefined {
            values.push((name.as_str().into(), value.into_value()));
        }
    }
    Ok(Held::Made(Value::Object(values)))
}

fn case<'m>(
    of: Option<&'m Expr>,
    arms: &'m [(Expr, Expr)],
    otherwise: Option<&'m Expr>,
    scope: Scope<'_, 'm, '_>,
) -> Answer<'m> {
    let of = of.map(|of| evaluate(of, scope)).transpose()?;
    if of.as_ref().is_some_and(|of| **of == Value::Undefined) {
        return undefined();
    }
    for (when, then) in arms {
        let when = evaluate(when, scope)?;
        let chosen = match &of {
            Some(of) => of.equals(&when) == Some(true),
            None => *when == Value::Bool(true),
        };
        if chosen {
            return evaluate(then, scope);
        }
    }
    otherwise.map_or(undefined(), |otherwise| evaluate(otherwise, scope))
}
