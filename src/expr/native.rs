//! The steps of a native program.

use regex::Regex;

use super::scope::Root;

/// One step of a native program.
#[derive(Debug)]
pub(super) enum Node {
    Constant(Constant),
    Root(Root),
    /// A loop's variable, by its place.
    Local(usize),
    Field(Box<Node>, Box<str>),
    Has(Box<Node>, Box<str>),
    Index(Box<[Node; 2]>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    If(Box<[Node; 3]>),
    /// The bool is what equality gives: false for `!=`.
    Equal(Box<[Node; 2]>, bool),
    Compare(Comparison, Box<[Node; 2]>),
    In(Box<[Node; 2]>),
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    List(Vec<Node>),
    Size(Box<Node>),
    Text(TextTest, Box<[Node; 2]>),
    Matches(Box<Node>, Regex),
    Convert(Conversion, Box<Node>),
    Loop(Box<Loop>),
}

#[derive(Debug)]
pub(super) enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Box<str>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Conversion {
    Int,
    UInt,
    Double,
    Text,
    Bool,
}

/// `over.all(x, body)` and its kin. The variable's place is the number of loops around it.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) kind: LoopKind,
    pub(super) over: Node,
    pub(super) body: Node,
}

#[derive(Debug)]
pub(super) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    /// `map` (with or without a condition) and `filter`: `body` of the elements that meet the condition.
    Map(Option<Node>),
}
