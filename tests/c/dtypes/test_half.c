/* test_half.c - a 16-bit float as F32 is exact for each of its 65,536 values; from F32, the nearest of them is taken.
 */
#include "support/check.h"
#include "dtypes/half.h"

#include <math.h>

typedef struct format {
    const char *name;
    int n_fraction, bias;
    float (*to_f32)(uint16_t);
    uint16_t (*from_f32)(float);
} format;

static const format formats[] = {{"F16", 10, 15, f32_of_f16, f16_of_f32}, {"BF16", 7, 127, f32_of_bf16, bf16_of_f32}};

/* The bits of infinity. */
static uint32_t infinity_of(format f) { return 0x7FFFu >> f.n_fraction << f.n_fraction; }

/* The value of finite bits h, by definition (IEEE 754-2019, section 3.4); of infinity, the power of two that would come
 * after the largest finite value. */
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

static void check_to_f32(format f) {
    for (uint32_t h = 0; h <= 0xFFFF; h++)
        CHECK_FOR(equal(f.to_f32((uint16_t)h), defined_value(f, h)), "%s %04x", f.name, h);
}

/* Both signs at once: from_f32(value) == h and from_f32(-value) == h with the sign bit. */
static bool rounds_to(format f, float value, uint32_t h) {
    return f.from_f32(value) == h && f.from_f32(-value) == (h | 0x8000);
}

/* Every value of the format, and the middle of each gap between neighbours, which rounds to the even one of both; the
 * next float on either side rounds to the neighbour of that side. */
static void check_rounding(format f) {
    for (uint32_t h = 0; h < infinity_of(f); h++) {
        float middle = (float)((finite_value(f, h) + finite_value(f, h + 1)) / 2);
        bool right = rounds_to(f, f.to_f32((uint16_t)h), h) && rounds_to(f, middle, h + (h & 1)) &&
                     rounds_to(f, nextafterf(middle, 0), h) && rounds_to(f, nextafterf(middle, INFINITY), h + 1);
        CHECK_FOR(right, "%s %04x", f.name, h);
    }
    CHECK_FOR(rounds_to(f, INFINITY, infinity_of(f)), "%s", f.name);
}

/* Between those places nothing can go wrong, because a larger float never has a smaller half. */
static void check_order(format f) {
    uint32_t last = 0, step = 251, n_wrong = 0;
    for (uint32_t bits = 0; bits <= 0x7F800000; bits += step) {
        uint32_t h = f.from_f32(f32_of_bits(bits));
        n_wrong += h < last || h > infinity_of(f);
        last = h;
    }
    CHECK_FOR(n_wrong == 0, "%s", f.name);
}

/* Every NaN of the upper half of its bits, and the smallest payload. */
static void check_nan(format f) {
    for (uint32_t upper = 0x7F80; upper <= 0x7FFF; upper++) {
        uint32_t bits = upper << 16 | 1, h = f.from_f32(f32_of_bits(bits)), quiet = 1u << (f.n_fraction - 1);
        CHECK_FOR(h <= 0x7FFF && (h & infinity_of(f)) == infinity_of(f) && (h & quiet), "%s %08x", f.name, bits);
        CHECK_FOR(f.from_f32(f32_of_bits(bits | 0x80000000)) == (h | 0x8000), "%s %08x", f.name, bits);
    }
}

int main(void) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        check_to_f32(formats[i]);
        check_rounding(formats[i]);
        check_order(formats[i]);
        check_nan(formats[i]);
    }
    return check_report();
}
