/* test_half.c - widening a 16-bit float is exact for each of its 65,536 values. */
#include "check.h"
#include "half.h"

#include <math.h>

/* The value of a float with n_fraction bits of fraction and an exponent of the given bias, by definition
 * (IEEE 754-2019, section 3.4). */
static double defined_value(uint32_t h, int n_fraction, int bias) {
    uint32_t exponent = (h & 0x7FFF) >> n_fraction, fraction = h & ((1u << n_fraction) - 1);
    uint32_t highest = 0x7FFFu >> n_fraction;
    double magnitude;
    if (exponent == highest) magnitude = fraction ? NAN : INFINITY;
    else if (exponent == 0) magnitude = ldexp(fraction, 1 - bias - n_fraction);
    else magnitude = ldexp(fraction + ldexp(1, n_fraction), (int)exponent - bias - n_fraction);
    return h & 0x8000 ? -magnitude : magnitude;
}

static bool equal(float value, double expected) {
    if (isnan(expected)) return isnan(value);
    return (double)value == expected && !signbit(value) == !signbit(expected);
}

int main(void) {
    for (uint32_t h = 0; h <= 0xFFFF; h++) {
        CHECK_FOR(equal(f32_of_f16((uint16_t)h), defined_value(h, 10, 15)), "F16 %04x", h);
        CHECK_FOR(equal(f32_of_bf16((uint16_t)h), defined_value(h, 7, 127)), "BF16 %04x", h);
    }
    return check_report();
}
