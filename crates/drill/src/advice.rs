//! What in a gateway's configuration to change, by what was found.

use serde::Serialize;

use crate::faults::Class;
use crate::gateway::Settings;
use crate::verdict::{Finding, Form, Outcome};

/// Something to change.
#[derive(Debug, Serialize)]
pub(crate) struct Advice {
    /// What LiteLLM calls it.
    pub(crate) setting: &'static str,
    /// For LiteLLM's proxy.
    pub(crate) litellm: &'static str,
    /// For any gateway.
    pub(crate) any_gateway: &'static str,
    /// What the configuration states now, if the drill has seen it.
    pub(crate) now: Option<String>,
    /// The failures that showed it.
    pub(crate) failures: Vec<&'static str>,
}

/// Advice for a finding.
struct Rule {
    findings: &'static [Finding],
    /// In failures of these classes; all, if there is none.
    classes: &'static [Class],
    setting: &'static str,
    litellm: &'static str,
    any_gateway: &'static str,
}

static RULES: [Rule; 15] = [
    Rule {
        findings: &[Finding::Lost, Finding::Elsewhere],
        classes: &[Class::Refusing, Class::Hanging],
        setting: "fallbacks",
        litellm: "List the primary with Backstop last behind it: `router_settings.fallbacks: [{\"primary\": [\"backstop\"]}]`. \
                  `default_fallbacks` serves groups that no list names.",
        any_gateway: "Every error of the primary must lead to the fallback: 401, 403, 404 and 451 as well as 429 and 5xx, and \
                      connections that fail.",
    },
    Rule {
        findings: &[Finding::Lost, Finding::Elsewhere],
        classes: &[Class::Context],
        setting: "context_window_fallbacks",
        litellm: "Prompts that are too long have a list of their own. Leave `context_window_fallbacks` out, so that `fallbacks` \
                  counts, or give it the same entry for the primary; by version, a list that forgets the primary means no fallback.",
        any_gateway: "A 400 whose error is context_length_exceeded must lead to the fallback, if that has the longer context.",
    },
    Rule {
        findings: &[Finding::Lost, Finding::Elsewhere],
        classes: &[Class::Policy],
        setting: "content_policy_fallbacks",
        litellm: "Refused contents have a list of their own. Leave `content_policy_fallbacks` out, so that `fallbacks` counts, or \
                  give it the same entry for the primary; a list that forgets the primary means no fallback.",
        any_gateway: "A 400 whose error is content_policy_violation must lead to the fallback, if your policy lets it answer.",
    },
    Rule {
        findings: &[Finding::Endless(Form::Stream), Finding::Late],
        classes: &[Class::Hanging, Class::Breaking, Class::Stalling],
        setting: "stream_timeout",
        litellm: "Set `stream_timeout` in the primary's `litellm_params`: it bounds the wait for each part of a stream, and so how \
                  long a client looks at nothing when the primary hangs.",
        any_gateway: "Bound the wait for the primary's first byte, and for each next part of a stream.",
    },
    Rule {
        findings: &[Finding::Endless(Form::Whole)],
        classes: &[Class::Hanging, Class::Breaking, Class::Stalling],
        setting: "timeout",
        litellm: "Set `timeout` in the primary's `litellm_params`: it bounds the wait for an answer in one piece, and must be \
                  shorter than your clients wait. It must leave time for the primary's longest answer too: let clients stream if both \
                  cannot be.",
        any_gateway: "Bound the wait for the primary's answers in one piece, by what your clients wait and not by the longest answer.",
    },
    Rule {
        findings: &[Finding::EveryoneWaits],
        classes: &[],
        setting: "allowed_fails",
        litellm: "While the primary hangs, every client waits for its timeout. `router_settings.allowed_fails: 1` with a `cooldown_time` \
                  lets a few clients wait, and then none: the gateway goes to Backstop at once until the cool-down is over.",
        any_gateway: "A circuit breaker keeps the gateway from asking a primary that hangs for every request again.",
    },
    Rule {
        findings: &[Finding::AskedAgain],
        classes: &[],
        setting: "num_retries",
        litellm: "Retries come before the fallback, and honour the primary's Retry-After of up to 60 s. Set `router_settings.num_retries: 0` \
                  and `max_retries: 0` in the primary's `litellm_params`, or a `retry_policy` that retries only what passes by itself.",
        any_gateway: "Do not repeat a request at a primary that has failed it: the client waits meanwhile. Repeat it at the last link.",
    },
    Rule {
        findings: &[Finding::Lost, Finding::Elsewhere],
        classes: &[Class::Breaking],
        setting: "enable_mid_stream_fallback_continuation",
        litellm: "Set `router_settings.enable_mid_stream_fallback_continuation: true`, and `supports_assistant_prefill: true` in Backstop's \
                  `model_info`: a stream that breaks in its text is then finished by Backstop instead of ending in an error.",
        any_gateway: "A stream that breaks in its text can be finished by Backstop: repeat the request with what was said as a last message \
                      of the assistant, and `\"prefix\": true` in it.",
    },
    Rule {
        findings: &[Finding::Lost, Finding::Elsewhere],
        classes: &[Class::Stalling],
        setting: "model",
        litellm: "What finishes broken streams (`enable_mid_stream_fallback_continuation`) finishes silent ones with `hosted_vllm/` as the \
                  prefix of the primary's `model`. With `openai/`, LiteLLM 1.110 takes their timeout for an error of the client's, which \
                  no fallback follows. The other prefix has its price: with it, a stream that ends with [DONE] and without a \
                  finish_reason passes for a complete one.",
        any_gateway: "Silence in a stream's text must lead to the fallback as a broken connection does.",
    },
    Rule {
        findings: &[Finding::Restarted],
        classes: &[],
        setting: "supports_assistant_prefill",
        litellm: "Backstop's answer began anew behind the primary's part. `supports_assistant_prefill: true` in its `model_info` makes the \
                  gateway hand over what was said already.",
        any_gateway: "A stream that falls back in its text must hand over what the client has read, as a last message of the assistant with \
                      `\"prefix\": true`.",
    },
    Rule {
        findings: &[Finding::PassedOff],
        classes: &[],
        setting: "model",
        litellm: "With `hosted_vllm/` a stream without finish_reason passes for a complete one. With `openai/` as the prefix of the primary's \
                  `model` it is an error, which leads to the fallback.",
        any_gateway: "A stream that ends without a finish_reason is broken, even if [DONE] stands at its end.",
    },
    Rule {
        findings: &[Finding::Mixed],
        classes: &[],
        setting: "caching",
        litellm: "No setting makes an answer come twice, or to another request. Look at caches and at plugins that touch answers first.",
        any_gateway: "No setting makes an answer come twice, or to another request. Look at caches and at plugins that touch answers first.",
    },
    Rule {
        findings: &[Finding::Unmarked],
        classes: &[],
        setting: "fallback_url",
        litellm: "Give the drill `--fallback-url`, so that it knows Backstop's answers by their system_fingerprint as well.",
        any_gateway: "Let x-backstop-model through, or system_fingerprint, and give the drill `--fallback-url`: an answer without a mark may be \
                      anybody's.",
    },
    Rule {
        findings: &[Finding::SlowToReturn],
        classes: &[],
        setting: "cooldown_time",
        litellm: "The primary was well again, and was not asked. Shorten `router_settings.cooldown_time`, if you want it back sooner.",
        any_gateway: "The primary was well again, and was not asked. Shorten the circuit breaker's pause, if you want it back sooner.",
    },
    Rule {
        findings: &[
            Finding::Late,
            Finding::Endless(Form::Stream),
            Finding::Endless(Form::Whole),
        ],
        classes: &[Class::Refusing, Class::Context, Class::Policy],
        setting: "retry_after",
        litellm: "A primary that refuses at once left clients waiting: that is time spent on retries (`num_retries`, `retry_after`, \
                  `max_retries`), or in Backstop's queue.",
        any_gateway: "A primary that refuses at once left clients waiting: that is time spent on retries, or in Backstop's queue.",
    },
];

/// What to change, the most common first as in the rules.
pub(crate) fn advice(outcomes: &[Outcome], settings: Option<&Settings>) -> Vec<Advice> {
    let advise = |rule: &'static Rule| {
        let failures: Vec<&str> = outcomes
            .iter()
            .filter(|outcome| rule.applies_to(outcome))
            .map(|outcome| outcome.name)
            .collect();
        (!failures.is_empty()).then(|| Advice {
            setting: rule.setting,
            litellm: rule.litellm,
            any_gateway: rule.any_gateway,
            now: settings.and_then(|settings| settings.stated(rule.setting)),
            failures,
        })
    };
    RULES.iter().filter_map(advise).collect()
}

impl Rule {
    fn applies_to(&self, outcome: &Outcome) -> bool {
        let is_its_class = self.classes.is_empty() || self.classes.contains(&outcome.class);
        is_its_class
            && outcome
                .findings
                .iter()
                .any(|finding| self.findings.contains(finding))
    }
}
