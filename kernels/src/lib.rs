//! Operations on tensors: references, CPU implementations, later CUDA ones.
