// Number formats: bfloat16 and the 8-bit float E4M3 (no infinities, largest magnitude 448).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define FUNCTION __device__ __forceinline__
#else
#define FUNCTION static inline
#endif

constexpr float E4M3_MAX = 448.0f;

// A bfloat16 in storage.
struct bf16 {
    uint16_t bits;
};

#ifdef __CUDACC__

FUNCTION uint32_t float_bits(float value) { return __float_as_uint(value); }
FUNCTION float bits_float(uint32_t bits) { return __uint_as_float(bits); }

// Two floats, rounded to nearest even, the first in the lower half.
FUNCTION uint32_t pack_bf16(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// Two floats as E4M3, rounded to nearest even, saturating; the first in the lower byte.
FUNCTION uint16_t pack_e4m3(float low, float high) {
    uint16_t packed;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(high), "f"(low));
    return packed;
}

// Two E4M3 numbers as two bfloat16, which hold them exactly.
FUNCTION uint32_t widen_e4m3(uint16_t packed) {
    uint32_t halves;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(packed));
    float low, high;
    asm("{\n.reg .b16 l, h;\nmov.b32 {l, h}, %2;\ncvt.f32.f16 %0, l;\ncvt.f32.f16 %1, h;\n}"
        : "=f"(low), "=f"(high)
        : "r"(halves));
    return pack_bf16(low, high);
}

#else

FUNCTION uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

FUNCTION float bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

FUNCTION uint32_t round_bf16_bits(float value) {
    uint32_t bits = float_bits(value);
    if (value != value) return 0x7fff;
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

FUNCTION uint32_t pack_bf16(float low, float high) {
    return round_bf16_bits(low) | round_bf16_bits(high) << 16;
}

FUNCTION uint8_t encode_e4m3(float value) {
    if (value != value) return 0x7f;
    uint8_t sign = std::signbit(value) ? 0x80 : 0;
    float magnitude = std::fmin(std::fabs(value), E4M3_MAX);
    int exponent;
    std::frexp(magnitude, &exponent);
    // The step between neighbours: 2^-9 among subnormal numbers, else 3 bits below the leading one.
    int step = exponent - 4 < -9 ? -9 : exponent - 4;
    float steps = std::nearbyint(std::ldexp(magnitude, -step));
    float rounded = std::ldexp(steps, step);
    if (rounded == 0) return sign;
    std::frexp(rounded, &exponent);
    if (exponent <= -6) return sign | static_cast<uint8_t>(std::ldexp(rounded, 9));
    uint8_t mantissa = static_cast<uint8_t>(std::ldexp(rounded, 4 - exponent)) & 7;
    return sign | static_cast<uint8_t>((exponent + 6) << 3) | mantissa;
}

FUNCTION float decode_e4m3(uint8_t code) {
    int exponent = code >> 3 & 15, mantissa = code & 7;
    float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                    : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    if ((code & 0x7f) == 0x7f) magnitude = NAN;
    return code & 0x80 ? -magnitude : magnitude;
}

FUNCTION uint16_t pack_e4m3(float low, float high) {
    return static_cast<uint16_t>(encode_e4m3(low) | encode_e4m3(high) << 8);
}

FUNCTION uint32_t widen_e4m3(uint16_t packed) {
    return pack_bf16(decode_e4m3(packed & 0xff), decode_e4m3(packed >> 8));
}

#endif

FUNCTION float to_float(bf16 value) { return bits_float(static_cast<uint32_t>(value.bits) << 16); }
FUNCTION float bf16_low(uint32_t packed) { return bits_float(packed << 16); }
FUNCTION float bf16_high(uint32_t packed) { return bits_float(packed & 0xffff0000u); }
FUNCTION bf16 to_bf16(float value) { return bf16{static_cast<uint16_t>(pack_bf16(value, 0.0f))}; }
