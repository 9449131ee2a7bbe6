// The products of every number format and token tile.
#include "product.cuh"

#define PRODUCT_KERNEL(name, Kind, N)                                                              \
    KERNEL(name, ProductArgs, Shape<N>::THREADS, Shape<N>::BLOCKS) { product<Kind, N>(args); }

PRODUCT_KERNEL(product_bf16_8, Bf16, 8)
PRODUCT_KERNEL(product_bf16_16, Bf16, 16)
PRODUCT_KERNEL(product_bf16_32, Bf16, 32)
PRODUCT_KERNEL(product_bf16_64, Bf16, 64)
PRODUCT_KERNEL(product_bf16_128, Bf16, 128)
PRODUCT_KERNEL(product_e4m3_8, E4m3, 8)
PRODUCT_KERNEL(product_e4m3_16, E4m3, 16)
PRODUCT_KERNEL(product_e4m3_32, E4m3, 32)
PRODUCT_KERNEL(product_e4m3_64, E4m3, 64)
PRODUCT_KERNEL(product_e4m3_128, E4m3, 128)
