//! How much a grammar may cost.

use llguidance::api::ParserLimits;

/// Bytes of all schemas, patterns and grammars of one request.
pub(super) const SOURCE_BYTES_MAX: usize = 512 << 10;
/// How deep anything that follows a source's structure can recurse, by an upper bound
/// (`bounds::levels`).
pub(super) const LEVELS_MAX: usize = 16_384;
/// Stack to compile on: the library takes up to 10 KiB of it for each level.
pub(super) const COMPILE_STACK_BYTES: usize = 256 << 20;
/// Stack of a trial. A grammar that overflows it ends the process that tries it, so that one that
/// does not has room to spare elsewhere.
pub(super) const TRIAL_STACK_BYTES: usize = COMPILE_STACK_BYTES / 2;
/// Bytes of a compiled grammar's tables, of which every sequence has its own. An enumeration of
/// 20,000 values has 1.5 MiB, and a step through tables of 8 MiB takes up to 30 ms.
pub(super) const COMPILED_BYTES_MAX: usize = 8 << 20;
/// Bytes to which the tables of one sequence may grow while its grammar is followed.
pub(super) const MATCHER_BYTES_MAX: usize = 32 << 20;
/// Bytes of the schemas of one tool's parameters, each with the definitions that it may refer to.
pub(super) const PARAMETER_BYTES_MAX: usize = 2 << 20;
/// Squares of the numbers of properties, alternatives and items that schemas list, added up: what
/// the library does with them takes time of that order, a third of a second for 550 properties.
pub(super) const SQUARED_MEMBERS_MAX: usize = 300_000;
/// Properties of an object that limits their number, which takes it longer yet.
pub(super) const COUNTED_PROPERTIES_MAX: usize = 64;
/// Keywords that are left out of hints: for each, grammars are compiled again.
pub(super) const LEFT_OUT_MAX: usize = 16;
/// Alternatives of a choice.
pub(super) const CHOICES_MAX: usize = 1024;
/// Tokens longer than this are never sampled under a grammar: the library has a limit on them.
pub(super) const TOKEN_BYTES_MAX: usize = 1000;
/// Compiled grammars that are kept.
pub(super) const CACHED_GRAMMARS_MAX: usize = 64;
/// Bytes of the compiled grammars that are kept, and of what they were compiled from.
pub(super) const CACHED_BYTES_MAX: usize = 128 << 20;
/// Bounds on the library's work, below its defaults where those allow one sequence hundreds of
/// megabytes, or a mask that takes longer than the model does.
pub(super) fn parser_limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2000,
        initial_lexer_fuel: 1_000_000,
        // Some milliseconds: intersections of several expressions of Unicode take their time.
        step_lexer_fuel: 200_000,
        step_max_items: 20_000,
        max_lexer_states: 50_000,
        max_grammar_size: 250_000,
        precompute_large_lexemes: true,
        // Errors must not repeat the request.
        verbose_errors: false,
    }
}

/// Bounds for grammars that clients write themselves, which can be so ambiguous that following
/// them takes time of the third power of the answer's length.
pub(super) fn foreign_parser_limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 150,
        ..parser_limits()
    }
}
