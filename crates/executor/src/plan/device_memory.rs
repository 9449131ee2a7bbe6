//! Divides a device's memory: weights, activations, and the rest for the KV cache.

use backstop_arch::KvGroup;

use super::memory::{
    KvMemoryPlan, KvMemoryRequest, full_demand_bytes, least_bytes, plan_kv_memory,
};

/// A KV cache of more than this many times what all sequences can need would never be used up.
const KV_DEMANDS_MAX: u64 = 4;
/// Largest share of the memory that is worth recommending: the driver needs some as well.
const UTILIZATION_MAX: f64 = 0.98;

/// Who wants what of a device's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceMemoryRequest {
    /// All memory of the device.
    pub(super) total_bytes: u64,
    /// What was free of it before anything of the model was there.
    pub(super) free_bytes: u64,
    /// Share of all memory that may be in use, whoever uses it: `--gpu-memory-utilization`.
    pub(super) utilization: f64,
    /// For the weights.
    pub(super) weights_bytes: u64,
    /// For the activations of the largest step.
    pub(super) activation_bytes: u64,
    /// For everything else whose size does not depend on the KV cache.
    pub(super) fixed_bytes: u64,
    /// The size of the KV cache that was asked for, or `None` for what is left.
    pub(super) kv_cache_bytes: Option<u64>,
    /// What the KV cache is wanted for; its budget is decided here.
    pub(super) kv: KvMemoryRequest,
}

/// Not everything fits; the text says by how much, and what would make it fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DeviceMemoryError {
    /// Bytes that are missing.
    pub missing_bytes: u64,
    message: String,
}

/// Sizes the KV cache so that everything fits into what may be used of the device's memory.
pub(super) fn plan_device_memory(
    groups: &[KvGroup],
    request: &DeviceMemoryRequest,
) -> Result<KvMemoryPlan, DeviceMemoryError> {
    let missing_bytes = request.missing(groups);
    if missing_bytes > 0 {
        return Err(DeviceMemoryError {
            missing_bytes,
            message: request.explain(groups, missing_bytes),
        });
    }
    let left = request.usable() - request.taken();
    let by_demand = || {
        let demand = full_demand_bytes(groups, &request.kv).saturating_mul(KV_DEMANDS_MAX);
        left.min(demand.max(least_bytes(groups, &request.kv)))
    };
    let budget_bytes = request.kv_cache_bytes.unwrap_or_else(by_demand);
    let kv = KvMemoryRequest {
        budget_bytes,
        ..request.kv
    };
    plan_kv_memory(groups, &kv).map_err(|error| DeviceMemoryError {
        missing_bytes: least_bytes(groups, &kv).saturating_sub(budget_bytes),
        message: error.to_string(),
    })
}

impl DeviceMemoryRequest {
    /// Bytes that this process may take.
    fn usable(&self) -> u64 {
        let allowed = (self.total_bytes as f64 * self.utilization) as u64;
        let by_others = self.total_bytes.saturating_sub(self.free_bytes);
        allowed.saturating_sub(by_others)
    }

    /// Bytes of everything but the KV cache.
    fn taken(&self) -> u64 {
        self.weights_bytes + self.activation_bytes + self.fixed_bytes
    }

    /// Bytes of the KV cache at least.
    fn kv_bytes(&self, groups: &[KvGroup]) -> u64 {
        let least = least_bytes(groups, &self.kv);
        self.kv_cache_bytes.unwrap_or(0).max(least)
    }

    /// Bytes that are missing.
    fn missing(&self, groups: &[KvGroup]) -> u64 {
        (self.taken() + self.kv_bytes(groups)).saturating_sub(self.usable())
    }

    fn explain(&self, groups: &[KvGroup], missing_bytes: u64) -> String {
        let KvMemoryRequest {
            max_model_len,
            max_num_batched_tokens,
            ..
        } = self.kv;
        let kv = match self.kv_cache_bytes {
            Some(asked) if asked >= least_bytes(groups, &self.kv) => "KV cache as asked for".into(),
            _ => format!("KV cache of one sequence of {max_model_len} tokens"),
        };
        let remedies = self.remedies(groups, missing_bytes);
        format!(
            "the GPU has too little memory: weights {}, activations of {max_num_batched_tokens} \
             tokens {}, tables {} and {kv} {} are {} more than the {} that may be used, which is \
             --gpu-memory-utilization {} of {} less {} that are in use already. {}",
            gib(self.weights_bytes),
            gib(self.activation_bytes),
            gib(self.fixed_bytes),
            gib(self.kv_bytes(groups)),
            gib(missing_bytes),
            gib(self.usable()),
            self.utilization,
            gib(self.total_bytes),
            gib(self.total_bytes.saturating_sub(self.free_bytes)),
            if remedies.is_empty() {
                "No single setting makes it fit".to_owned()
            } else {
                format!("It would fit with {}", remedies.join(", or with "))
            }
        )
    }

    /// Settings each of which would make everything fit.
    fn remedies(&self, groups: &[KvGroup], missing_bytes: u64) -> Vec<String> {
        let fits = |kv: KvMemoryRequest| Self { kv, ..*self }.missing(groups) == 0;
        let mut remedies = Vec::new();
        let unasked = Self {
            kv_cache_bytes: None,
            ..*self
        };
        if self.kv_cache_bytes.is_some() && unasked.missing(groups) == 0 {
            remedies.push("a smaller --kv-cache-memory".to_owned());
        }
        let length = |max_model_len| KvMemoryRequest {
            max_model_len,
            ..self.kv
        };
        // In steps of a thousand tokens, as people set it.
        let shorter = (1..=self.kv.max_model_len / 1024).rev();
        let shorter = shorter.map(|thousands| thousands * 1024);
        if let Some(fitting) = shorter.into_iter().find(|&tokens| fits(length(tokens))) {
            remedies.push(format!("--max-model-len {fitting}"));
        }
        let narrow = KvMemoryRequest {
            element_bytes: 1,
            ..self.kv
        };
        if self.kv.element_bytes > 1 && fits(narrow) {
            remedies.push("--kv-cache-dtype fp8".to_owned());
        }
        if let Some(tokens) = self.fitting_step(missing_bytes) {
            remedies.push(format!("--max-num-batched-tokens {tokens}"));
        }
        let alone = KvMemoryRequest {
            max_num_seqs: 1,
            ..self.kv
        };
        if fits(alone) {
            remedies.push("a smaller --max-num-seqs".to_owned());
        }
        let needed = (self.usable() + missing_bytes) as f64
            + self.total_bytes.saturating_sub(self.free_bytes) as f64;
        let utilization = (needed / self.total_bytes.max(1) as f64 * 100.0).ceil() / 100.0;
        if utilization <= UTILIZATION_MAX {
            remedies.push(format!("--gpu-memory-utilization {utilization}"));
        }
        remedies
    }

    /// Tokens of a step whose activations are small enough, if they grow with the tokens.
    fn fitting_step(&self, missing_bytes: u64) -> Option<u32> {
        let tokens = u64::from(self.kv.max_num_batched_tokens);
        let left = self.activation_bytes.checked_sub(missing_bytes)?;
        let fitting = tokens * left / self.activation_bytes.max(1) / 512 * 512;
        let fitting = u32::try_from(fitting).ok()?;
        (fitting >= 512.max(self.kv.max_num_seqs)).then_some(fitting)
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / (1_u64 << 30) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::memory::tests::north_mini_code;

    /// North Mini Code with FP8 experts, as its arithmetic has it.
    const FP8_WEIGHTS: u64 = 32_021_618_688 + 44_040_192;
    const BF16_WEIGHTS: u64 = 60_968_607_744;

    /// An H100 with 80 GB, of which the driver has taken some.
    fn request(weights_bytes: u64) -> DeviceMemoryRequest {
        DeviceMemoryRequest {
            total_bytes: 81_559 << 20,
            free_bytes: 81_000 << 20,
            utilization: 0.92,
            weights_bytes,
            activation_bytes: 1 << 30,
            fixed_bytes: 64 << 20,
            kv_cache_bytes: None,
            kv: KvMemoryRequest {
                budget_bytes: 0,
                block_size: 16,
                element_bytes: 2,
                max_num_seqs: 256,
                max_model_len: 320_000,
                max_num_batched_tokens: 8192,
            },
        }
    }

    fn refused(request: &DeviceMemoryRequest) -> DeviceMemoryError {
        plan_device_memory(&north_mini_code(), request).unwrap_err()
    }

    #[test]
    fn fp8_weights_leave_room_for_the_longest_context() {
        let request = request(FP8_WEIGHTS);
        let plan = plan_device_memory(&north_mini_code(), &request).unwrap();
        let used = request.taken() + plan.bytes;
        assert!(used <= request.usable());
        assert!(used + (1 << 30) > request.usable(), "memory is left over");
        assert!(plan.spec.groups[0].num_blocks >= 320_000 / 16);
        assert!(plan.bytes > 38 << 30, "{}", plan.bytes);
    }

    /// What stands behind a flag in the sentence about what would fit.
    fn advised(text: &str, flag: &str) -> f64 {
        let remedies = text.split("It would fit with").nth(1).unwrap_or_default();
        let value = remedies.split(flag).nth(1);
        let value = value.unwrap_or_else(|| panic!("{flag}: {text}")).trim();
        let value = value.split([',', ' ']).next().unwrap_or_default();
        value.parse().unwrap_or_else(|_| panic!("{flag}: {text}"))
    }

    #[test]
    fn every_remedy_for_bf16_weights_and_the_longest_context_is_one() {
        let mut tight = DeviceMemoryRequest {
            activation_bytes: 4 << 30,
            ..request(BF16_WEIGHTS)
        };
        tight.kv.max_model_len = 500_000;
        let plan = |request: &DeviceMemoryRequest| plan_device_memory(&north_mini_code(), request);
        let error = refused(&tight);
        assert!((1 << 30..3 << 30).contains(&error.missing_bytes), "{error}");
        let text = error.to_string();

        let mut shorter = tight;
        shorter.kv.max_model_len = advised(&text, "--max-model-len") as u32;
        plan(&shorter).unwrap();
        shorter.kv.max_model_len += 1024;
        refused(&shorter);

        let mut narrow = tight;
        narrow.kv.element_bytes = 1;
        assert!(text.contains("--kv-cache-dtype fp8"), "{text}");
        plan(&narrow).unwrap();

        let generous = DeviceMemoryRequest {
            utilization: advised(&text, "--gpu-memory-utilization"),
            ..tight
        };
        plan(&generous).unwrap();

        let tokens = advised(&text, "--max-num-batched-tokens");
        let mut small_steps = tight;
        small_steps.activation_bytes = (tight.activation_bytes as f64 * tokens / 8192.0) as u64;
        small_steps.kv.max_num_batched_tokens = tokens as u32;
        plan(&small_steps).unwrap();
    }

    #[test]
    fn weights_beyond_the_card_have_no_remedy() {
        let error = refused(&request(90 << 30));
        assert!(error.to_string().contains("No single setting"), "{error}");
        assert!(error.missing_bytes > 15 << 30);
    }

    #[test]
    fn memory_that_others_use_is_not_taken() {
        let alone = request(FP8_WEIGHTS);
        let shared = DeviceMemoryRequest {
            free_bytes: alone.free_bytes - (10 << 30),
            ..alone
        };
        let plan = |request| plan_device_memory(&north_mini_code(), request).unwrap();
        let difference = plan(&alone).bytes - plan(&shared).bytes;
        assert!(difference.abs_diff(10 << 30) < 1 << 30, "{difference}");
    }

    #[test]
    fn a_size_that_is_asked_for_is_kept_or_refused() {
        let asked = |bytes| DeviceMemoryRequest {
            kv_cache_bytes: Some(bytes),
            ..request(FP8_WEIGHTS)
        };
        let plan = plan_device_memory(&north_mini_code(), &asked(20 << 30)).unwrap();
        assert!(plan.bytes <= 20 << 30 && plan.bytes > 19 << 30);
        let error = refused(&asked(60 << 30));
        assert!(error.to_string().contains("--kv-cache-memory"), "{error}");
    }

    #[test]
    fn a_small_model_does_not_take_the_whole_card() {
        let mut small = request(10 << 20);
        small.kv.max_model_len = 2048;
        small.kv.max_num_seqs = 4;
        let plan = plan_device_memory(&north_mini_code(), &small).unwrap();
        let demand = full_demand_bytes(&north_mini_code(), &small.kv);
        assert!(plan.bytes <= KV_DEMANDS_MAX * demand);
        assert!(plan.bytes >= demand);
    }
}
