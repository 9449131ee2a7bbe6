//! How much a grammar may cost.

use llguidance::api::ParserLimits;

/// Bytes of all schemas, patterns and grammars of one request.
pub(super) const SOURCE_BYTES_MAX: usize = 512 << 10;
/// Bytes of the schemas of one tool's parameters, each with the definitions that it may refer to.
pub(super) const PARAMETER_BYTES_MAX: usize = 2 << 20;
/// Squares of the numbers of properties, alternatives and items that schemas list, added up: what
/// the library does with them takes time of that order, a third of a second for 550 properties.
pub(super) const SQUARED_MEMBERS_MAX: usize = 300_000;
/// Properties of an object that limits their number, which takes it longer yet.
pub(super) const COUNTED_PROPERTIES_MAX: usize = 64;
/// Alternatives of a choice.
pub(super) const CHOICES_MAX: usize = 1024;
/// Tokens longer than this are never sampled under a grammar: the library has a limit on them.
pub(super) const TOKEN_BYTES_MAX: usize = 1000;
/// Compiled grammars that are kept.
pub(super) const CACHED_GRAMMARS_MAX: usize = 64;
/// Bytes of source of the compiled grammars that are kept; what they compile to is some hundred
/// times larger.
pub(super) const CACHED_SOURCE_BYTES_MAX: usize = 2 << 20;
/// Bounds on the library's work, below its defaults where those allow one sequence hundreds of
/// megabytes, or a mask that takes longer than the model does.
pub(super) fn parser_limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 50_000,
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
