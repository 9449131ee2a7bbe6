//! A template's source as instructions, with a guard at each that can make much out of little.
//!
//! The engine's public interface has no place for a guard at an operator or at a template's own
//! text, so this uses its inner parts, which may change: the dependency is pinned.

use std::collections::BTreeMap;

use minijinja::machinery::{CompiledTemplate, Instruction, Instructions, TemplateConfig, Token};
use minijinja::machinery::{eval, make_string_output, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

use super::survey::{Survey, survey};
use super::{filters, methods, operations};

const NAME: &str = "chat_template";
/// Longest source.
const SOURCE_BYTES_MAX: usize = 1 << 20;
/// Words and signs between `{{` and `}}`, or between `{%` and `%}`. An expression can be nested as
/// deeply as it is long.
const TAG_TOKENS_MAX: usize = 4096;
/// `elif` in the whole template. Each is nested in the one before it.
const ELIFS_MAX: usize = 512;
/// Bytes of all constants that come of multiplying constants, which the compiler does by itself.
const PRODUCT_BYTES_MAX: usize = 16 << 20;
/// Lists that are spread into the arguments of one call.
const SPREAD_LISTS_MAX: usize = 8;
/// Filters past those that the engine finds faster.
const NO_LOCAL_ID: u8 = u8::MAX;

/// A compiled template.
pub(super) struct Program {
    instructions: Instructions<'static>,
    blocks: BTreeMap<&'static str, Instructions<'static>>,
}

impl Program {
    /// Compiles a template, and tells what it asks for in vain. Its text is never freed: it is as long as a model is
    /// served.
    pub(super) fn compile(
        source: String,
        environment: &Environment<'static>,
    ) -> Result<(Self, Survey), Error> {
        let syntax = environment.syntax().clone();
        check_source(&source, &syntax)?;
        let source: &'static str = source.leak();
        let survey = survey(&parse(source, NAME, syntax.clone())?, environment);
        let config = TemplateConfig {
            syntax_config: syntax,
            default_auto_escape: std::sync::Arc::new(|_| AutoEscape::None),
        };
        let compiled = CompiledTemplate::new(NAME, source, &config)?;
        let blocks = compiled.blocks.iter();
        let blocks = blocks.map(|(name, block)| Ok((*name, guarded(block)?)));
        let program = Self {
            instructions: guarded(&compiled.instructions)?,
            blocks: blocks.collect::<Result<_, Error>>()?,
        };
        Ok((program, survey))
    }

    /// Runs the template on these variables.
    pub(super) fn run(
        &self,
        environment: &Environment<'static>,
        variables: Value,
    ) -> Result<String, Error> {
        let mut text = String::new();
        let mut out = make_string_output(&mut text);
        eval(
            environment,
            &self.instructions,
            variables,
            &self.blocks,
            &mut out,
            AutoEscape::None,
        )?;
        Ok(text)
    }
}

/// What would overflow the compiler's stack, or its memory, is refused before it is compiled.
fn check_source(source: &str, syntax: &SyntaxConfig) -> Result<(), Error> {
    let refusal = |reason: &str| Error::new(ErrorKind::SyntaxError, reason.to_owned());
    if source.len() > SOURCE_BYTES_MAX {
        return Err(refusal("the template is too long"));
    }
    let mut tag = Tag::default();
    let mut elifs = 0;
    let mut product_bytes = 0_usize;
    for token in tokenize(source, false, syntax.clone()) {
        let (token, _) = token?;
        if matches!(token, Token::BlockStart | Token::VariableStart) {
            tag = Tag::default();
        }
        elifs += usize::from(matches!(token, Token::Ident("elif")));
        tag.add(&token);
        if tag.tokens > TAG_TOKENS_MAX {
            return Err(refusal("an expression is too long"));
        }
        if matches!(token, Token::BlockEnd | Token::VariableEnd) {
            product_bytes = product_bytes.saturating_add(tag.product_bytes());
        }
    }
    if elifs > ELIFS_MAX {
        return Err(refusal("a condition has too many branches"));
    }
    if product_bytes > PRODUCT_BYTES_MAX {
        return Err(refusal("a product of constants is too large"));
    }
    Ok(())
}

/// What stands in one tag.
#[derive(Default)]
struct Tag {
    tokens: usize,
    /// What stands before is something that can be multiplied; otherwise a star spreads a list.
    is_behind_operand: bool,
    multiplies: bool,
    /// Bytes of what can be repeated: texts, and the elements of lists.
    bytes: usize,
    /// Nothing that the tag's numbers come to is larger; `None` stands for one.
    factor: Option<usize>,
}

impl Tag {
    fn add(&mut self, token: &Token<'_>) {
        const ELEMENT_BYTES: usize = 24;
        self.tokens += 1;
        let mut multiply = |number: usize| {
            // At least two, so that sums are not larger either.
            let factor = self.factor.unwrap_or(1).saturating_mul(number.max(2));
            self.factor = Some(factor);
        };
        match token {
            Token::Mul | Token::Pow => self.multiplies |= self.is_behind_operand,
            Token::Int(number) => multiply(usize::try_from(*number).unwrap_or(usize::MAX)),
            Token::Int128(_) | Token::Float(_) => multiply(usize::MAX),
            Token::Str(text) => self.bytes += text.len(),
            Token::String(text) => self.bytes += text.len(),
            Token::Comma => self.bytes += ELEMENT_BYTES,
            // Not a subscript, but a list.
            Token::BracketOpen if !self.is_behind_operand => self.bytes += ELEMENT_BYTES,
            _ => {}
        }
        if matches!(token, Token::Pow) && self.is_behind_operand {
            multiply(usize::MAX);
        }
        self.is_behind_operand = !matches!(
            token,
            Token::ParenOpen | Token::Comma | Token::BraceOpen | Token::BracketOpen
        );
    }

    /// Bytes that multiplying constants can come to.
    fn product_bytes(&self) -> usize {
        match self.multiplies && self.bytes > 0 {
            true => self.bytes.saturating_mul(self.factor.unwrap_or(1)),
            false => 0,
        }
    }
}

/// The same instructions, with guards.
fn guarded(old: &Instructions<'static>) -> Result<Instructions<'static>, Error> {
    let mut groups = Vec::new();
    let mut places = Vec::new();
    let mut place = 0_u32;
    for index in 0.. {
        places.push(place);
        let Some(instruction) = old.get(index) else {
            break;
        };
        let group = with_guards(instruction)?;
        place += group.len() as u32;
        groups.push(group);
    }
    let mut new = Instructions::new(old.name(), old.source());
    for (index, group) in groups.into_iter().enumerate() {
        let line = old.get_line(index as u32).unwrap_or(0);
        let line = u16::try_from(line).unwrap_or(u16::MAX);
        for mut instruction in group {
            if let Some(target) = target_of(&mut instruction) {
                *target = places[*target as usize];
            }
            new.add_with_line(instruction, line);
        }
    }
    Ok(new)
}

/// Where an instruction may continue, other than with the next.
fn target_of<'a>(instruction: &'a mut Instruction<'static>) -> Option<&'a mut u32> {
    match instruction {
        Instruction::Jump(target)
        | Instruction::JumpIfFalse(target)
        | Instruction::JumpIfFalseOrPop(target)
        | Instruction::JumpIfTrueOrPop(target)
        | Instruction::Iterate(target)
        | Instruction::BuildMacro(_, target, _) => Some(target),
        _ => None,
    }
}

fn with_guards(instruction: &Instruction<'static>) -> Result<Vec<Instruction<'static>>, Error> {
    let guard = |name, arguments| Instruction::ApplyFilter(name, Some(arguments), NO_LOCAL_ID);
    let own = instruction.clone();
    // A guard of two operands gives them back as a pair.
    let operator = |name| {
        let own = instruction.clone();
        let pair = Instruction::UnpackList(2);
        vec![guard(name, 2), pair, Instruction::Swap, own]
    };
    Ok(match instruction {
        Instruction::EmitRaw(text) => {
            vec![
                Instruction::LoadConst(Value::from(*text)),
                Instruction::Emit,
            ]
        }
        Instruction::Add => vec![guard(operations::ADD, 2)],
        Instruction::Mul => operator(operations::BEFORE_MULTIPLY),
        Instruction::StringConcat => vec![guard(operations::CONCATENATE, 2)],
        Instruction::Rem => vec![guard(operations::REMAINDER, 2)],
        Instruction::Slice => vec![guard(operations::SLICE, 4)],
        Instruction::In => vec![guard(operations::CONTAINS, 2)],
        Instruction::Lt => vec![guard(operations::LESS, 2)],
        Instruction::Lte => vec![guard(operations::LESS_OR_EQUAL, 2)],
        Instruction::Gt => vec![guard(operations::GREATER, 2)],
        Instruction::Gte => vec![guard(operations::GREATER_OR_EQUAL, 2)],
        Instruction::PushLoop(_) => vec![guard(operations::BEFORE_LOOP, 1), own],
        Instruction::GetAttr(name) if methods::is_name(name) => vec![
            Instruction::LoadConst(Value::from(*name)),
            guard(operations::ATTRIBUTE, 2),
        ],
        Instruction::SetAttr(_) => vec![
            Instruction::Swap,
            guard(operations::BEFORE_KEEPING, 1),
            Instruction::Swap,
            own,
        ],
        Instruction::BuildList(_) | Instruction::BuildTuple(_) | Instruction::BuildMap(_) => {
            vec![own, guard(operations::AFTER_BUILDING, 1)]
        }
        Instruction::CallFunction(..) => vec![own, guard(operations::AFTER_FUNCTION, 1)],
        Instruction::ApplyFilter(name, ..) if filters::is_generator(name) => {
            vec![own, guard(operations::AFTER_GENERATOR, 1)]
        }
        Instruction::UnpackLists(lists) if *lists > SPREAD_LISTS_MAX => {
            let reason = "too many lists are spread into one call";
            return Err(Error::new(ErrorKind::SyntaxError, reason));
        }
        Instruction::ApplyFilter(..)
        | Instruction::BuildKwargs(_)
        | Instruction::CallMethod(..)
        | Instruction::CallObject(..) => vec![own, guard(operations::AFTER_CALLING, 1)],
        _ => vec![own],
    })
}
