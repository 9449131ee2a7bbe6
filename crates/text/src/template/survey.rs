//! What a template asks for and the engine does not have, found before anything is rendered.

use std::collections::BTreeSet;

use minijinja::machinery::ast::{Call, CallArg, Expr, Macro, Stmt};
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};

use super::{operations, texts};

/// Filters and tests of jinja2 that the engine lacks or that are left out: what they make has no near bound, or no
/// template needs them.
const UNAVAILABLE_FILTERS: [&str; 11] = [
    "batch",
    "filesizeformat",
    "pprint",
    "random",
    "slice",
    "striptags",
    "truncate",
    "urlencode",
    "urlize",
    "wordwrap",
    "xmlattr",
];
const UNAVAILABLE_FUNCTIONS: [&str; 3] = ["lipsum", "cycler", "joiner"];
/// Methods of other values than texts, those that the sandbox of transformers forbids among them: calling them fails
/// here as it does there.
const OTHER_METHODS: [&str; 20] = [
    "append",
    "bit_length",
    "changed",
    "clear",
    "copy",
    "cycle",
    "extend",
    "get",
    "insert",
    "is_integer",
    "items",
    "keys",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "values",
];
/// What a macro gets beyond its arguments.
const FURTHER_ARGUMENTS: [&str; 2] = ["varargs", "kwargs"];
/// Methods of other values than texts that Python has beside those.
const UNAVAILABLE_METHODS: [&str; 5] = [
    "as_integer_ratio",
    "bit_count",
    "conjugate",
    "fromkeys",
    "hex",
];
/// What is reported of one template.
const FINDINGS_MAX: usize = 32;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// What cannot be rendered, each with its line.
    pub(super) unsupported: Vec<String>,
    /// What fails where it is reached, as it does in jinja2, which loads such templates as well.
    pub(super) doubtful: Vec<String>,
}

/// Goes through a template's statements.
pub(super) fn survey(template: &Stmt<'_>, environment: &Environment<'_>) -> Survey {
    let mut declared = Declared::default();
    declared.statement(template);
    let mut surveyor = Surveyor {
        environment,
        declared: declared.names,
        macros: 0,
        found: Survey::default(),
    };
    surveyor.statement(template, false);
    let mut found = surveyor.found;
    found.unsupported.truncate(FINDINGS_MAX);
    found.doubtful.truncate(FINDINGS_MAX);
    found
}

/// The names that a template gives to values, its macros among them.
#[derive(Default)]
struct Declared<'a> {
    names: BTreeSet<&'a str>,
}

impl<'a> Declared<'a> {
    fn statements(&mut self, statements: &'a [Stmt<'a>]) {
        statements
            .iter()
            .for_each(|statement| self.statement(statement));
    }

    fn statement(&mut self, statement: &'a Stmt<'a>) {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::ForLoop(node) => {
                self.target(&node.target);
                self.statements(&node.body);
                self.statements(&node.else_body);
            }
            Stmt::IfCond(node) => {
                self.statements(&node.true_body);
                self.statements(&node.false_body);
            }
            Stmt::WithBlock(node) => {
                node.assignments
                    .iter()
                    .for_each(|(target, _)| self.target(target));
                self.statements(&node.body);
            }
            Stmt::Set(node) => self.target(&node.target),
            Stmt::SetBlock(node) => {
                self.target(&node.target);
                self.statements(&node.body);
            }
            Stmt::AutoEscape(node) => self.statements(&node.body),
            Stmt::FilterBlock(node) => self.statements(&node.body),
            Stmt::Block(node) => self.statements(&node.body),
            Stmt::Macro(node) => self.macro_of(node),
            Stmt::CallBlock(node) => self.macro_of(&node.macro_decl),
            _ => {}
        }
    }

    fn macro_of(&mut self, node: &'a Macro<'a>) {
        self.names.insert(node.name);
        node.args.iter().for_each(|argument| self.target(argument));
        self.statements(&node.body);
    }

    fn target(&mut self, target: &'a Expr<'a>) {
        match target {
            Expr::Var(variable) => {
                self.names.insert(variable.id);
            }
            Expr::GetAttr(attribute) => {
                self.names.insert(attribute.name);
            }
            Expr::List(list) => list.items.iter().for_each(|item| self.target(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.target(item)),
            _ => {}
        }
    }
}

struct Surveyor<'a, 'e> {
    environment: &'e Environment<'e>,
    declared: BTreeSet<&'a str>,
    /// Macros around what is looked at.
    macros: usize,
    found: Survey,
}

/// The kinds of names.
#[derive(Clone, Copy)]
enum Kind {
    Filter,
    Test,
    Function,
}

impl Kind {
    fn told(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Test => "test",
            Self::Function => "function",
        }
    }
}

impl<'a> Surveyor<'a, '_> {
    fn statements(&mut self, statements: &'a [Stmt<'a>], is_conditional: bool) {
        for statement in statements {
            self.statement(statement, is_conditional);
        }
    }

    /// jinja2 lets names be unknown within conditions, but for what is within a loop, a macro or the like in there.
    fn statement(&mut self, statement: &'a Stmt<'a>, is_conditional: bool) {
        let mut unavailable = |statement: &str, line: u16| {
            self.found
                .unsupported
                .push(format!("`{statement}` (line {line})"));
        };
        match statement {
            Stmt::Template(node) => self.statements(&node.children, false),
            Stmt::EmitExpr(node) => self.expression(&node.expr, is_conditional),
            Stmt::ForLoop(node) => {
                self.expression(&node.iter, is_conditional);
                self.optional(node.filter_expr.as_ref(), false);
                self.statements(&node.body, false);
                self.statements(&node.else_body, false);
            }
            Stmt::IfCond(node) => {
                self.expression(&node.expr, true);
                self.statements(&node.true_body, true);
                self.statements(&node.false_body, true);
            }
            Stmt::WithBlock(node) => {
                for (_, value) in &node.assignments {
                    self.expression(value, is_conditional);
                }
                self.statements(&node.body, false);
            }
            Stmt::Set(node) => self.expression(&node.expr, is_conditional),
            Stmt::SetBlock(node) => {
                self.optional(node.filter.as_ref(), false);
                self.statements(&node.body, false);
            }
            Stmt::AutoEscape(node) => self.statements(&node.body, false),
            Stmt::FilterBlock(node) => {
                self.expression(&node.filter, false);
                self.statements(&node.body, false);
            }
            Stmt::Block(node) => self.statements(&node.body, false),
            Stmt::Macro(node) => self.macro_of(node),
            Stmt::CallBlock(node) => {
                self.call(&node.call, node.call.span().start_line, is_conditional);
                self.macro_of(&node.macro_decl);
            }
            Stmt::Do(node) => self.call(&node.call, node.call.span().start_line, is_conditional),
            Stmt::Import(node) => unavailable("import", node.span().start_line),
            Stmt::FromImport(node) => unavailable("from … import", node.span().start_line),
            Stmt::Extends(node) => unavailable("extends", node.span().start_line),
            Stmt::Include(node) => unavailable("include", node.span().start_line),
            Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => {}
        }
    }

    fn macro_of(&mut self, node: &'a Macro<'a>) {
        for default in &node.defaults {
            self.expression(default, false);
        }
        self.macros += 1;
        self.statements(&node.body, false);
        self.macros -= 1;
    }

    fn optional(&mut self, expression: Option<&'a Expr<'a>>, is_conditional: bool) {
        if let Some(expression) = expression {
            self.expression(expression, is_conditional);
        }
    }

    fn expression(&mut self, expression: &'a Expr<'a>, soft: bool) {
        match expression {
            Expr::Var(node) => {
                let is_declared = self.declared.contains(node.id);
                if self.macros > 0 && FURTHER_ARGUMENTS.contains(&node.id) && !is_declared {
                    let line = node.span().start_line;
                    self.found
                        .unsupported
                        .push(format!("`{}` (line {line})", node.id));
                }
            }
            Expr::Const(_) => {}
            Expr::Slice(node) => {
                self.expression(&node.expr, soft);
                for bound in [&node.start, &node.stop, &node.step] {
                    self.optional(bound.as_ref(), soft);
                }
            }
            Expr::UnaryOp(node) => self.expression(&node.expr, soft),
            Expr::BinOp(node) => {
                self.expression(&node.left, soft);
                self.expression(&node.right, soft);
            }
            Expr::Compare(node) => {
                self.expression(&node.expr, soft);
                node.ops
                    .iter()
                    .for_each(|op| self.expression(&op.expr, soft));
            }
            Expr::IfExpr(node) => {
                self.expression(&node.test_expr, true);
                self.expression(&node.true_expr, true);
                self.optional(node.false_expr.as_ref(), true);
            }
            Expr::Filter(node) => {
                self.name(Kind::Filter, node.name, node.span().start_line, soft);
                self.optional(node.expr.as_ref(), soft);
                self.arguments(&node.args, soft);
            }
            Expr::Test(node) => {
                self.name(Kind::Test, node.name, node.span().start_line, soft);
                self.expression(&node.expr, soft);
                self.arguments(&node.args, soft);
            }
            Expr::GetAttr(node) => self.expression(&node.expr, soft),
            Expr::GetItem(node) => {
                self.expression(&node.expr, soft);
                self.expression(&node.subscript_expr, soft);
            }
            Expr::Call(node) => self.call(node, node.span().start_line, soft),
            Expr::List(node) => node
                .items
                .iter()
                .for_each(|item| self.expression(item, soft)),
            Expr::Tuple(node) => node
                .items
                .iter()
                .for_each(|item| self.expression(item, soft)),
            Expr::Map(node) => {
                for item in node.keys.iter().chain(&node.values) {
                    self.expression(item, soft);
                }
            }
        }
    }

    fn arguments(&mut self, arguments: &'a [CallArg<'a>], soft: bool) {
        for argument in arguments {
            match argument {
                CallArg::Pos(value)
                | CallArg::Kwarg(_, value)
                | CallArg::PosSplat(value)
                | CallArg::KwargSplat(value) => self.expression(value, soft),
            }
        }
    }

    fn call(&mut self, call: &'a Call<'a>, line: u16, soft: bool) {
        match &call.expr {
            Expr::Var(variable) => self.name(Kind::Function, variable.id, line, soft),
            Expr::GetAttr(attribute) => {
                self.method(attribute.name, line);
                self.expression(&attribute.expr, soft);
            }
            other => self.expression(other, soft),
        }
        self.arguments(&call.args, soft);
    }

    fn method(&mut self, name: &str, line: u16) {
        let told = || format!("method `{name}` (line {line})");
        if texts::METHODS.contains(&name)
            || OTHER_METHODS.contains(&name)
            || self.declared.contains(name)
        {
            return;
        }
        match texts::UNAVAILABLE_METHODS.contains(&name) || UNAVAILABLE_METHODS.contains(&name) {
            true => self.found.unsupported.push(told()),
            false => self.found.doubtful.push(told()),
        }
    }

    fn name(&mut self, kind: Kind, name: &str, line: u16, soft: bool) {
        let (is_known, is_jinjas) = match kind {
            Kind::Filter => (self.has_filter(name), UNAVAILABLE_FILTERS.contains(&name)),
            Kind::Test => (self.has_test(name), false),
            Kind::Function => (
                self.declared.contains(name) || self.has_function(name),
                UNAVAILABLE_FUNCTIONS.contains(&name),
            ),
        };
        if is_known && !is_jinjas {
            return;
        }
        let told = format!("{} `{name}` (line {line})", kind.told());
        match soft && !is_jinjas {
            true => self.found.doubtful.push(told),
            false => self.found.unsupported.push(told),
        }
    }

    fn has_filter(&self, name: &str) -> bool {
        let result = self.environment.empty_state().apply_filter(name, &[]);
        !is_of_kind(result, ErrorKind::UnknownFilter)
            && !operations::UNAVAILABLE_FILTERS.contains(&name)
    }

    fn has_test(&self, name: &str) -> bool {
        let result = self.environment.empty_state().perform_test(name, &[]);
        !is_of_kind(result.map(Value::from), ErrorKind::UnknownTest)
    }

    fn has_function(&self, name: &str) -> bool {
        let own = ["caller", "loop", "super", "self"];
        own.contains(&name) || self.environment.globals().any(|(global, _)| global == name)
    }
}

fn is_of_kind(result: Result<Value, Error>, kind: ErrorKind) -> bool {
    result.is_err_and(|error| error.kind() == kind)
}
