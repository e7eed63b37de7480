/* test_half.c - widening a 16-bit float is exact for each of its 65,536 values; narrowing takes the nearest of them. */
#include "support/check.h"
#include "dtypes/half.h"

#include <math.h>

typedef struct format {
    const char *name;
    int n_fraction, bias;
    float (*widen)(uint16_t);
    uint16_t (*narrow)(float);
} format;

static const format formats[] = {{"F16", 10, 15, f32_of_f16, f16_of_f32}, {"BF16", 7, 127, f32_of_bf16, bf16_of_f32}};

/* The bits of infinity. */
static uint32_t infinity_of(format f) { return 0x7FFFu >> f.n_fraction << f.n_fraction; }

/* The value of finite bits h, by definition (IEEE 754-2019, section 3.4); of infinity, the power of two that would come
 * after the largest number. */
static double finite_value(format f, uint32_t h) {
    uint32_t exponent = (h & 0x7FFF) >> f.n_fraction, fraction = h & ((1u << f.n_fraction) - 1);
    double significand = exponent ? fraction + ldexp(1, f.n_fraction) : fraction;
    double magnitude = ldexp(significand, (exponent ? (int)exponent : 1) - f.bias - f.n_fraction);
    return h & 0x8000 ? -magnitude : magnitude;
}

static double defined_value(format f, uint32_t h) {
    if ((h & 0x7FFF) > infinity_of(f)) return NAN;
    if ((h & 0x7FFF) == infinity_of(f)) return h & 0x8000 ? -INFINITY : INFINITY;
    return finite_value(f, h);
}

static bool equal(float value, double expected) {
    if (isnan(expected)) return isnan(value);
    return (double)value == expected && !signbit(value) == !signbit(expected);
}

static void check_widening(format f) {
    for (uint32_t h = 0; h <= 0xFFFF; h++)
        CHECK_FOR(equal(f.widen((uint16_t)h), defined_value(f, h)), "%s %04x", f.name, h);
}

/* Both signs at once: narrow(value) == h and narrow(-value) == h with the sign bit. */
static bool narrows_to(format f, float value, uint32_t h) {
    return f.narrow(value) == h && f.narrow(-value) == (h | 0x8000);
}

/* Every number of the format, and the middle of each gap between neighbours: the even one of both has it, and the next
 * float on either side goes to its own. */
static void check_rounding(format f) {
    for (uint32_t h = 0; h < infinity_of(f); h++) {
        float middle = (float)((finite_value(f, h) + finite_value(f, h + 1)) / 2);
        bool right = narrows_to(f, f.widen((uint16_t)h), h) && narrows_to(f, middle, h + (h & 1)) &&
                     narrows_to(f, nextafterf(middle, 0), h) && narrows_to(f, nextafterf(middle, INFINITY), h + 1);
        CHECK_FOR(right, "%s %04x", f.name, h);
    }
    CHECK_FOR(narrows_to(f, INFINITY, infinity_of(f)), "%s", f.name);
}

/* Between those places nothing can go wrong, because a larger float never has a smaller half. */
static void check_order(format f) {
    uint32_t last = 0, step = 251, n_wrong = 0;
    for (uint32_t bits = 0; bits <= 0x7F800000; bits += step) {
        uint32_t h = f.narrow(f32_of_bits(bits));
        n_wrong += h < last || h > infinity_of(f);
        last = h;
    }
    CHECK_FOR(n_wrong == 0, "%s", f.name);
}

/* Every NaN of the upper half of its bits, and the smallest payload. */
static void check_nan(format f) {
    for (uint32_t upper = 0x7F80; upper <= 0x7FFF; upper++) {
        uint32_t bits = upper << 16 | 1, h = f.narrow(f32_of_bits(bits)), quiet = 1u << (f.n_fraction - 1);
        CHECK_FOR(h <= 0x7FFF && (h & infinity_of(f)) == infinity_of(f) && (h & quiet), "%s %08x", f.name, bits);
        CHECK_FOR(f.narrow(f32_of_bits(bits | 0x80000000)) == (h | 0x8000), "%s %08x", f.name, bits);
    }
}

int main(void) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        check_widening(formats[i]);
        check_rounding(formats[i]);
        check_order(formats[i]);
        check_nan(formats[i]);
    }
    return check_report();
}
