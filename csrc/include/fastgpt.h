/* fastgpt.h - run GPT-2-family language models on a CPU.
 *
 *     fastgpt_model *model;  fastgpt_pool *pool;  fastgpt_context *ctx;  fastgpt_kv_cache *kv;
 *     fastgpt_error error;
 *     fastgpt_model_load("model.gguf", NULL, &model, &error);
 *     fastgpt_pool_create(0, &pool);
 *     fastgpt_context_create(model, pool, 0, &ctx);
 *     fastgpt_kv_cache_create(model, 0, &kv);
 *     fastgpt_prefill(ctx, kv, tokens, n_tokens, logits);          the prompt
 *     fastgpt_decode(ctx, kv, next_token, logits);                 then one token at a time
 *
 * or from text to text:
 *
 *     fastgpt_tokenizer_create(model, &tokenizer, &error);
 *     fastgpt_sampler_create(fastgpt_model_n_vocab(model), &params, &sampler);
 *     fastgpt_encode(tokenizer, text, n_bytes, FASTGPT_ENCODE_SPECIAL, tokens, capacity, &n_tokens);
 *     fastgpt_generate(ctx, kv, sampler, tokenizer, tokens, n_tokens, 100, print_piece, NULL, NULL);
 *
 * or all of it in one handle, which remembers what was said:
 *
 *     fastgpt_generator_open("model.gguf", NULL, &generator, &error);
 *     fastgpt_generator_continue(generator, text, n_bytes, print_piece, NULL, &error);
 *
 * Conventions, for every function below:
 *   - A matrix named m [a][b] is row-major: m[i * b + j].  Sizes count elements, never bytes, unless
 *     the name says bytes.
 *   - Functions that can fail return a fastgpt_status.  They check their arguments first; on any error
 *     outputs and caches are as they were.  A _create that fails sets *out to NULL.
 *   - _free accepts NULL.  Free a model or a pool after everything that was created from it.
 *   - A model and a tokenizer may be shared by any number of threads.  A context, a cache, a sampler, a stream and a
 *     generator each belong to one thread at a time.  The exceptions are fastgpt_cancel and fastgpt_generator_cancel.
 *   - The library never prints, never exits and installs no signal handler.  What it changes for the whole process:
 *     a fork waits for the matrix products that run in BLAS; and on a CPU with AMX, Linux is asked for the permission
 *     to use its tiles.  A system BLAS is left as the host set it: what it prints, starts and allocates, and that some
 *     end the process where they get no memory, is between the two.  The private copy of OpenBLAS does none of that.
 *
 * Only the part between the cdef marks is visible to cffi (build_ffi.py); it keeps to plain C
 * declarations so that other binding generators can read it too.
 */
#ifndef FASTGPT_H
#define FASTGPT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The library exports the functions below and nothing else. */
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

/* cdef:begin */

/* ---- Status ------------------------------------------------------------------------------------ */

/* Values are fixed for ever; new ones are added at the end. */
typedef enum fastgpt_status {
    FASTGPT_OK = 0,
    FASTGPT_ERR_ARGUMENT = 1,  /* a NULL pointer, a negative size, or a value outside its range */
    FASTGPT_ERR_MEMORY = 2,  /* an allocation failed */
    FASTGPT_ERR_IO = 3,  /* a file could not be opened, read, mapped or written */
    FASTGPT_ERR_FORMAT = 4,  /* the file is damaged or not GGUF */
    FASTGPT_ERR_UNSUPPORTED = 5,  /* the file is sound but asks for something not implemented */
    FASTGPT_ERR_N_TOKENS = 6,  /* a span of no tokens, or of a negative number of them */
    FASTGPT_ERR_TOKEN_RANGE = 7,  /* a token outside [0, n_vocab) */
    FASTGPT_ERR_CONTEXT_FULL = 8,  /* n_past + n_tokens would exceed the cache's n_ctx */
    FASTGPT_ERR_CACHE_MISMATCH = 9,  /* the cache was made for another model */
    FASTGPT_ERR_CACHE_TWICE = 10, /* two spans of one step name the same cache */
    FASTGPT_ERR_CANCELLED = 11, /* fastgpt_cancel was called */
    FASTGPT_ERR_LOGITS = 12, /* logits with NaN or +infinity, or no token left that is not banned */
    FASTGPT_ERR_THREADS = 13, /* the system refused to start a thread */
    FASTGPT_ERR_CAPACITY = 14, /* the caller's array is too small; the number of elements needed is told */
    FASTGPT_ERR_NO_TOKEN = 15, /* the vocabulary lacks the token of a byte that the text has */
    FASTGPT_ERR_NUMBERS = 16  /* a number is NaN or infinite, or too large for its type */
} fastgpt_status;

/* What a status means, in English.  Never NULL, static storage, also for unknown values. */
const char *fastgpt_status_text(fastgpt_status status);

/* Which tensor or key was wrong, what was expected and what was found.  NUL-terminated, always. */
typedef struct fastgpt_error {
    char text[512];
} fastgpt_error;

/* The number of the binary interface.  It changes when a program that was compiled against an older header would no
 * longer run right, and the library's file name with it: libfastgpt.so.1.  New functions, new status codes and new
 * fields at the end of a struct with a struct_size leave it as it is. */
enum { FASTGPT_ABI_VERSION = 1 };

/* FASTGPT_ABI_VERSION of the library that is loaded, which may be newer than the header that was compiled. */
int32_t fastgpt_abi_version(void);

/* "0.1.0": static storage. */
const char *fastgpt_version(void);

/* What the library was built with, for a bug report: "BLAS Native, compiler GNU 12.2.0, instruction sets portable avx2
 * avx512".  Static storage. */
const char *fastgpt_build_info(void);

/* The BLAS behind products of many tokens, for example "OpenBLAS (ILP64)": static storage. */
const char *fastgpt_blas_name(void);

/* The kernels chosen for this CPU: "portable", "avx2", "avx2-vnni", "avx512", "avx512-vnni", "avx512-bf16", "amx",
 * "neon" or "neon-dotprod".  The environment variable FASTGPT_ISA = portable, avx2, avx512, amx or neon forces the best
 * of one family; "none" when that family is not available.  Static storage. */
const char *fastgpt_kernels_name(void);

/* The i-th set of kernels that this CPU and build can run, from "portable" on; NULL beyond the last.  Static storage.
 */
const char *fastgpt_kernels_available(int32_t i);

/* ---- Number types: F32 rows to the types of model files, and back -------------------------------- */

/* The number types of weights in GGUF files; the values are GGUF's own
 * (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).  In a block, numbers share a scale. */
typedef enum fastgpt_type {
    FASTGPT_TYPE_F32 = 0,
    FASTGPT_TYPE_F16 = 1,  /* IEEE 754 binary16 */
    FASTGPT_TYPE_Q4_0 = 2, /* blocks of 32 numbers of 4 bits, 18 bytes */
    FASTGPT_TYPE_Q4_1 = 3, /* the same above a minimum, 20 bytes */
    FASTGPT_TYPE_Q5_0 = 6, /* blocks of 32 numbers of 5 bits, 22 bytes */
    FASTGPT_TYPE_Q5_1 = 7, /* the same above a minimum, 24 bytes */
    FASTGPT_TYPE_Q8_0 = 8, /* blocks of 32 numbers of 8 bits, 34 bytes */
    FASTGPT_TYPE_Q4_K = 12, /* blocks of 256 numbers of 4 bits, 144 bytes */
    FASTGPT_TYPE_Q5_K = 13, /* blocks of 256 numbers of 5 bits, 176 bytes */
    FASTGPT_TYPE_Q6_K = 14, /* blocks of 256 numbers of 6 bits, 210 bytes */
    FASTGPT_TYPE_I8 = 24, /* tiles of 8 bits, with one F32 scale a row in a tensor of their own */
    FASTGPT_TYPE_BF16 = 30 /* the upper half of F32 */
} fastgpt_type;

/* "Q8_0" and so on; "unknown" for any other value.  Static storage. */
const char *fastgpt_type_name(fastgpt_type type);

/* Bytes of a row of n numbers.  0 when there is no such row: the type is unknown or I8, whose rows lie interleaved, or
 * n is negative or not a multiple of the type's block. */
int64_t fastgpt_type_row_bytes(fastgpt_type type, int32_t n);

/* Rounds F32 rows to a type; bit for bit the bytes of the PyPI package gguf (gguf.quants.quantize) and, on x86-64,
 * of ggml's reference.  F16 and BF16 take the nearest number, ties to even.
 *   type  F32, F16, BF16, Q8_0 or Q4_0
 *   x     [n_rows][n], n a multiple of the type's block
 *   out   [n_rows][fastgpt_type_row_bytes(type, n)] bytes; aligned to 4 bytes for F32, else to 2; must not overlap x
 * Returns OK, ARGUMENT, or NUMBERS: one of x is NaN or infinite, or so large that it, or the scale of its block (an
 * F16), would become infinite.  Runs in the calling thread; allocates nothing; on error out is unchanged. */
fastgpt_status fastgpt_quantize_rows(fastgpt_type type, const float *x, int64_t n_rows, int32_t n, void *out);

/* The way back, bit for bit gguf.quants.dequantize.  Exact for F32, F16 and BF16.
 *   numbers  [n_rows][fastgpt_type_row_bytes(type, n)] bytes, aligned as above; any bytes are valid
 *   out      [n_rows][n], must not overlap numbers
 * Returns OK or ARGUMENT. */
fastgpt_status fastgpt_dequantize_rows(fastgpt_type type, const void *numbers, int64_t n_rows, int32_t n, float *out);

/* ---- Model: weights, hyper-parameters, vocabulary.  Immutable, any thread ----------------------- */

typedef struct fastgpt_model fastgpt_model;

/* Set struct_size to sizeof(fastgpt_load_options) and everything else to zero for the defaults. */
typedef struct fastgpt_load_options {
    size_t struct_size;
    int32_t no_mmap; /* 0: map the file read-only.  1: copy it, so that it may change or shrink later */
    int32_t padding; /* not read: programs of the first release left it undefined */
    int32_t vocab_only; /* 1: read the vocabulary alone, of any file that has one, weights or not, and whatever its
                           architecture: for fastgpt_tokenizer_create and the functions below.  n_vocab is then the
                           number of tokens, every other size is 0, and a context or a KV cache of it is ARGUMENT */
} fastgpt_load_options;

/* Loads a GGUF v3 file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), architecture "gpt2" or
 * "fastgpt-gpt2", tensor types as in fastgpt_type.  Matrices of F32, F16, BF16, Q8_0, Q4_0, Q6_K and I8 are used where
 * they lie, in their own type.  Those of the other types are copied as Q8_0, and vectors of another type than F32 as
 * F32. path     UTF-8 options  NULL = defaults error    NULL, or receives the details of any failure Returns OK,
 * ARGUMENT, MEMORY, IO, FORMAT or UNSUPPORTED. While a file is mapped nobody may shorten it: the system then kills the
 * process (SIGBUS). */
fastgpt_status fastgpt_model_load(const char *path, const fastgpt_load_options *options, fastgpt_model **out,
                                  fastgpt_error *error);

/* The same for a file that stands in memory.
 *   bytes    [n_bytes]; no_mmap 0: used where they lie, aligned to 4 bytes, and neither changed nor freed before the
 *            model is.  no_mmap 1: copied, and free to go after the call
 * Returns as fastgpt_model_load, without IO. */
fastgpt_status fastgpt_model_load_memory(const void *bytes, size_t n_bytes, const fastgpt_load_options *options,
                                         fastgpt_model **out, fastgpt_error *error);
void fastgpt_model_free(fastgpt_model *model);

int32_t fastgpt_model_n_vocab(const fastgpt_model *model);
int32_t fastgpt_model_n_ctx(const fastgpt_model *model);   /* positions that the model was trained for */
int32_t fastgpt_model_n_embd(const fastgpt_model *model);
int32_t fastgpt_model_n_head(const fastgpt_model *model);
int32_t fastgpt_model_n_layer(const fastgpt_model *model);
int32_t fastgpt_model_n_ff(const fastgpt_model *model);    /* width of the feed-forward layer, often 4 n_embd */
int64_t fastgpt_model_n_params(const fastgpt_model *model); /* stored numbers; a tied output counts once */

/* The type that most weight bytes have in the file, as fastgpt_type_name gives it; "none" for a vocabulary.  Static
 * storage. */
const char *fastgpt_model_type(const fastgpt_model *model);

/* What stands between the two products of a feed-forward layer: "gelu_tanh", "gelu_erf", "relu" or "silu".  Static
 * storage. */
const char *fastgpt_model_activation(const fastgpt_model *model);

/* general.name of the file, "" when absent.  NUL-terminated, owned by the model. */
const char *fastgpt_model_name(const fastgpt_model *model);

/* The text, or the bytes, under a metadata key that holds a string or an array of 8-bit integers, such as
 * "general.license".  Not NUL-terminated, owned by the model.  *n_bytes becomes 0 and the result NULL when the
 * file has no such key, or another type under it. */
const char *fastgpt_model_metadata(const fastgpt_model *model, const char *key, size_t *n_bytes);

/* The epsilon of its layer norms. */
float fastgpt_model_layer_norm_epsilon(const fastgpt_model *model);

/* A tensor as it lies in the file, by its name there, such as "blk.0.attn_qkv.weight": rows that
 * fastgpt_dequantize_rows turns into floats.  Owned by the model.
 *   type, n_rows, n_columns  receive its type and shape; n_rows is 1 for a vector.  Of I8 they are lines of 64 bytes,
 * which hold 4 values of each of 16 rows, so that [n_in / 4] lines are a tile; w = (byte - 128) * scale, with the
 * scales in the F32 vector "blk.0.attn_qkv.scale" and so on NULL, and 0 in all three, when the model has no such
 * tensor, or is a vocabulary alone. */
const void *fastgpt_model_tensor(const fastgpt_model *model, const char *name, fastgpt_type *type, int64_t *n_rows,
                                 int64_t *n_columns);

/* Bytes that the model keeps in memory besides a mapped file. */
size_t fastgpt_model_sizeof(const fastgpt_model *model);

/* The token that ends a text, -1 when the file names none; of several, the one that the file names first. */
int32_t fastgpt_model_eos_token(const fastgpt_model *model);

/* All tokens that end a text, that one first: [n_eos_tokens], each once, owned by the model.  A file has them under
 * tokenizer.ggml.eos_token_id, eot_token_id (end of a turn) and eom_token_id (of a message), and further ones in an
 * array of 32-bit unsigned integers, fastgpt.eos_token_ids. */
int32_t fastgpt_model_n_eos_tokens(const fastgpt_model *model);
const int32_t *fastgpt_model_eos_tokens(const fastgpt_model *model);

/* The bytes that a token stands for; not NUL-terminated, owned by the model.  *n_bytes becomes 0 and the
 * result NULL for a token outside [0, n_vocab) or a file without a vocabulary. */
const char *fastgpt_model_token_bytes(const fastgpt_model *model, int32_t token, size_t *n_bytes);

/* A list of strings of the file's tokenizer, end to end: string i is text[offsets[i] .. offsets[i + 1]).
 * Both arrays belong to the model. */
typedef struct fastgpt_strings {
    int64_t n;
    const char *text;        /* [offsets[n]], UTF-8 as in the file, not NUL-terminated */
    const uint64_t *offsets; /* [n + 1] */
} fastgpt_strings;

/* Tokens by id, in the byte alphabet of GPT-2's encoder.json (a space is written U+0120, and so on),
 * and merge rules ("a b") by rank.  n is 0 for a file without a tokenizer. */
fastgpt_strings fastgpt_model_tokens(const fastgpt_model *model);
fastgpt_strings fastgpt_model_merges(const fastgpt_model *model);

/* The same into *out, for languages to which C returns no structs. */
void fastgpt_model_get_tokens(const fastgpt_model *model, fastgpt_strings *out);
void fastgpt_model_get_merges(const fastgpt_model *model, fastgpt_strings *out);

/* [n_vocab] tokenizer.ggml.token_type: 1 normal, 3 control, 4 user-defined, 5 unused.  NULL when the
 * file has none: then all are normal. */
const int32_t *fastgpt_model_token_types(const fastgpt_model *model);

/* ---- Pool: worker threads, shared by contexts --------------------------------------------------- */

typedef struct fastgpt_pool fastgpt_pool;

/* Number of cores this process may use (affinity mask and cgroup quota respected), at least 1. */
int32_t fastgpt_usable_cores(void);

/* The limits behind that number; 0 = there is none, or the system does not tell. */
typedef struct fastgpt_cores {
    int32_t usable;   /* the least of the others, at least 1 */
    int32_t online;   /* cores that the system runs */
    int32_t affinity; /* of them, those that this process may be scheduled on */
    int32_t quota;    /* cores whose time the quotas of its control groups pay for, rounded up */
} fastgpt_cores;

fastgpt_cores fastgpt_core_counts(void);
void fastgpt_get_core_counts(fastgpt_cores *out);

/* n_threads counts the caller: 1 starts no thread.  0 = fastgpt_usable_cores(); at most 1024.  Threads
 * start at the first step, sleep between steps, and start again in the child of a fork.
 * One step runs in a pool at a time; others wait.  The results of a step do not depend on n_threads. */
fastgpt_status fastgpt_pool_create(int32_t n_threads, fastgpt_pool **out);
void fastgpt_pool_free(fastgpt_pool *pool);
int32_t fastgpt_pool_n_threads(const fastgpt_pool *pool);

/* ---- KV cache: keys and values of one sequence ------------------------------------------------- */

typedef struct fastgpt_kv_cache fastgpt_kv_cache;

/* n_ctx positions, 0 = the model's own n_ctx, which is also the largest allowed.
 * Memory: 2 * n_layer * n_ctx * n_embd floats, and n_ctx tokens; pages are touched as positions are used. */
fastgpt_status fastgpt_kv_cache_create(const fastgpt_model *model, int32_t n_ctx, fastgpt_kv_cache **out);

/* The same with numbers of type F32, F16, BF16 or Q8_0: half the memory, of Q8_0 0.27 of it, and as much less that a
 * step reads of a long past, for keys and values that are rounded to it when they are written.  What that costs in
 * perplexity: docs/quality.md.  Q8_0 needs heads of a multiple of 32 values, and few tokens of a step (3 a sequence)
 * are multiplied as integers.  Caches of different types may share a step. */
fastgpt_status fastgpt_kv_cache_create_typed(const fastgpt_model *model, int32_t n_ctx, fastgpt_type type,
                                             fastgpt_kv_cache **out);

/* The type that the commands and the Python package give a cache unless told otherwise: F32 for a model whose matrices
 * are all F32, F16 for any other. */
fastgpt_type fastgpt_model_kv_type(const fastgpt_model *model);

/* The same, and in words what is wrong: which argument, what it is and what it may be.
 *   error  NULL, or receives the details of any failure
 * Returns OK, ARGUMENT or MEMORY. */
fastgpt_status fastgpt_kv_cache_create_checked(const fastgpt_model *model, int32_t n_ctx, fastgpt_type type,
                                               fastgpt_kv_cache **out, fastgpt_error *error);
void fastgpt_kv_cache_free(fastgpt_kv_cache *kv); /* does not touch the model */
int32_t fastgpt_kv_cache_n_ctx(const fastgpt_kv_cache *kv);
int32_t fastgpt_kv_cache_n_past(const fastgpt_kv_cache *kv);

/* Of the n_past positions, how many from the first on are the work of deterministic steps alone: what a deterministic
 * step may build upon. */
int32_t fastgpt_kv_cache_n_deterministic(const fastgpt_kv_cache *kv);

/* The layer from which on all positions have keys and values: 0, unless steps have skipped layers (fastgpt_start). */
int32_t fastgpt_kv_cache_start_layer(const fastgpt_kv_cache *kv);
fastgpt_type fastgpt_kv_cache_type(const fastgpt_kv_cache *kv);
size_t fastgpt_kv_cache_sizeof(const fastgpt_kv_cache *kv); /* without a shared prefix */

/* Forgets positions from n_past on; 0 empties the cache.  ARGUMENT when n_past is outside [0, current]; MEMORY when it
 * is inside a shared prefix, which the cache leaves for a longer tail of its own, and there is no room for that. */
fastgpt_status fastgpt_kv_cache_truncate(fastgpt_kv_cache *kv, int32_t n_past);

/* Keys or values of one layer, [n_past - n_prefix][n_embd] of the cache's type, n_prefix being 0 unless it was forked;
 * head h has columns [h * n_embd / n_head, (h + 1) * ...).  A row of Q8_0 has n_embd integers of 8 bits, and then the
 * F16 scales of each 32 of them.  Valid until the cache is freed, forked, or truncated into
 * its prefix; the next step appends rows.  NULL when layer is outside [0, n_layer). */
const void *fastgpt_kv_cache_keys(const fastgpt_kv_cache *kv, int32_t layer);
const void *fastgpt_kv_cache_values(const fastgpt_kv_cache *kv, int32_t layer);

/* [n_past] the tokens at these positions.  Valid as the keys are. */
const int32_t *fastgpt_kv_cache_tokens(const fastgpt_kv_cache *kv);

/* A copy: the same keys, values, tokens and room; both then diverge. */
fastgpt_status fastgpt_kv_cache_copy(const fastgpt_kv_cache *kv, fastgpt_kv_cache **out);

/* A new cache that shares kv's first n_prefix positions; both then diverge.
 *   n_prefix  in [0, n_past]
 *   n_ctx     room of the new cache, at least n_prefix; 0 = that of kv
 * The shared positions are stored once, and so are those of every later fork at or before n_prefix; they are freed with
 * the last cache that shares them, in any order and from any thread.  A fork at a later position copies the prefix into
 * a block of twice its size, so that repeated forks, even one after each token, only append to it.  Each cache belongs
 * to one thread at a time, like any cache. Neighbouring spans of a step that have fewer than 4 tokens each and share a
 * prefix of one length read it together, up to 32 tokens at a time.  The results have the bits of caches that share
 * nothing. Returns OK, ARGUMENT or MEMORY. */
fastgpt_status fastgpt_kv_cache_fork(fastgpt_kv_cache *kv, int32_t n_prefix, int32_t n_ctx, fastgpt_kv_cache **out);

/* The shared part: its positions, 0 = none; its keys and values, [n_prefix][n_embd], NULL where there are none; the
 * bytes of all positions that it has room for, which fastgpt_kv_cache_sizeof of no cache counts. */
int32_t fastgpt_kv_cache_n_prefix(const fastgpt_kv_cache *kv);
const void *fastgpt_kv_cache_prefix_keys(const fastgpt_kv_cache *kv, int32_t layer);
const void *fastgpt_kv_cache_prefix_values(const fastgpt_kv_cache *kv, int32_t layer);
size_t fastgpt_kv_cache_prefix_sizeof(const fastgpt_kv_cache *kv);

/* Writes keys, values and tokens to a file (its format: csrc/kv_cache/kv_cache_file.c) with a checksum and the
 * fingerprint of the model's file.  The file is complete or not there: it is written under another name first.  Its
 * owner alone may read it.  The first call for a model reads all of its weights once, and a call needs as much memory
 * as the file has bytes. model  that kv was made for path   UTF-8; a file of that name is replaced, but a model file is
 * ARGUMENT.  A symbolic link is followed; a pipe, a character device and what /dev/stdout stands for are written to; a
 * folder, a socket, a block device are IO error  NULL, or receives the details of any failure Returns OK, ARGUMENT,
 * MEMORY, IO or CACHE_MISMATCH (kv is another model's). */
fastgpt_status fastgpt_kv_cache_save(const fastgpt_kv_cache *kv, const fastgpt_model *model, const char *path,
                                     fastgpt_error *error);

/* A cache with what was saved, and room for n_ctx positions, 0 = the model's own n_ctx.  Steps go on from it to the bit
 * as they would have from the cache that was saved.
 * Returns OK, ARGUMENT, MEMORY, IO, FORMAT (damaged, or no such file), UNSUPPORTED (the format of a later version),
 * CACHE_MISMATCH (saved with another model's file) or CONTEXT_FULL (n_ctx is less than what was saved). */
fastgpt_status fastgpt_kv_cache_load(const fastgpt_model *model, const char *path, int32_t n_ctx,
                                     fastgpt_kv_cache **out, fastgpt_error *error);

/* ---- Context: scratch memory for steps ---------------------------------------------------------- */

typedef struct fastgpt_context fastgpt_context;

/* pool NULL = the calling thread alone.  n_batch is the number of tokens computed together: longer
 * spans are cut into slices of it; 0 = 512, at most 65536.  All memory that a step needs is allocated here: with the
 * private copy of OpenBLAS also 32 MB of address space a thread, of which a product touches what it needs, and which
 * contexts share where they are more than the cores.  Returns OK, ARGUMENT or MEMORY. */
fastgpt_status fastgpt_context_create(const fastgpt_model *model, fastgpt_pool *pool, int32_t n_batch,
                                      fastgpt_context **out);
void fastgpt_context_free(fastgpt_context *ctx);
size_t fastgpt_context_sizeof(const fastgpt_context *ctx);

/* New tokens of one sequence, to be appended to its cache. */
typedef struct fastgpt_span {
    fastgpt_kv_cache *kv;
    const int32_t *tokens; /* [n_tokens] */
    int32_t n_tokens;
} fastgpt_span;

/* Head `head` of layer `layer`. */
typedef struct fastgpt_head {
    int32_t layer; /* in [0, n_layer) */
    int32_t head;  /* in [0, n_head) */
} fastgpt_head;

/* The places of a model whose values a step can show (fastgpt_taps) and change (fastgpt_edit, fastgpt_hook), in the
 * order of a step.  Names and meanings are those of TransformerLens, with ff for mlp.  Values are fixed for ever. */
typedef enum fastgpt_site {
    FASTGPT_SITE_EMBED = 0, /* [n_embd] wte[token]; this and the next have no layer: 0 */
    FASTGPT_SITE_POS_EMBED = 1, /* [n_embd] wpe[position] */
    FASTGPT_SITE_RESID_PRE = 2, /* [n_embd] the residual stream before a layer; from here on one for each layer */
    FASTGPT_SITE_LN_1 = 3, /* [n_embd] normed, with scale and bias: what attention reads */
    FASTGPT_SITE_Q = 4, /* [n_head][n_embd / n_head] queries */
    FASTGPT_SITE_K = 5, /* [n_head][n_embd / n_head] keys, before they are rounded to the type of a cache */
    FASTGPT_SITE_V = 6, /* [n_head][n_embd / n_head] values, likewise */
    FASTGPT_SITE_SCORES =
        7, /* [n_head][n_keys] q . k / sqrt(n_embd / n_head); -infinity after a token's own position */
    FASTGPT_SITE_PATTERN = 8, /* [n_head][n_keys] softmax of the scores: the weights of attention */
    FASTGPT_SITE_Z = 9, /* [n_head][n_embd / n_head] values times pattern: the outputs of the heads */
    FASTGPT_SITE_ATTN_OUT = 10, /* [n_embd] what attention adds to the residual stream, with the bias */
    FASTGPT_SITE_RESID_MID = 11, /* [n_embd] the residual stream between attention and feed-forward part */
    FASTGPT_SITE_LN_2 = 12, /* [n_embd] normed: what the feed-forward part reads */
    FASTGPT_SITE_FF_PRE = 13, /* [n_ff] neurons before the activation */
    FASTGPT_SITE_FF_POST = 14, /* [n_ff] and after it */
    FASTGPT_SITE_FF_OUT = 15, /* [n_embd] what the feed-forward part adds to the residual stream, with the bias */
    FASTGPT_SITE_RESID_POST = 16, /* [n_embd] the residual stream after a layer: resid_pre of the next one */
    FASTGPT_SITE_LN_F = 17 /* [n_embd] the last resid_post, normed: what the output matrix reads; no layer: 0 */
} fastgpt_site;

enum { FASTGPT_N_SITES = 18 };

/* "resid_pre" and so on; "unknown" for any other value.  Static storage. */
const char *fastgpt_site_name(fastgpt_site site);

/* Numbers that a site has for one token: n_embd or n_ff; 0 for scores and pattern, whose rows are as long as the
 * sequence, and for any other value. */
int32_t fastgpt_site_width(const fastgpt_model *model, fastgpt_site site);

/* Values of one site to copy out of a step. */
typedef struct fastgpt_site_tap {
    int32_t site; /* fastgpt_site */
    int32_t layer; /* in [0, n_layer); 0 for sites without layers */
    float *to; /* [n_tokens][width]; scores and pattern [n_head][n_tokens][n_keys], with the n_keys of fastgpt_taps */
} fastgpt_site_tap;

/* Intermediate values to copy out of a step, into arrays of the caller; NULL = not wanted.  Rows are the n_tokens
 * tokens of the step, in the order of its spans.  Where a step is edited they are the edited values, which the rest of
 * the step reads.  Rows of layers that a span skips (fastgpt_start) are not written. Set struct_size to
 * sizeof(fastgpt_taps) and everything else to zero for none. */
typedef struct fastgpt_taps {
    size_t struct_size;
    float *hidden; /* [n_layer + 1][n_tokens][n_embd] the residual stream: the embeddings, then after each layer */
    float *hidden_mid; /* [n_layer][n_tokens][n_embd] the same between attention and feed-forward part of each layer */
    float *ln_1; /* [n_layer][n_tokens][n_embd] normed, what attention reads */
    float *ln_2; /* [n_layer][n_tokens][n_embd] normed, what the feed-forward part reads */
    float *ln_f; /* [n_tokens][n_embd] the last of hidden, normed: what the output matrix reads */
    const fastgpt_head *heads; /* [n_heads] whose attention is wanted, in any order; NULL when n_heads is 0 */
    float *attention; /* [n_heads][n_tokens][n_keys] the weight of each position of a token's sequence, 0 for those
                         after its own; a row sums to 1 */
    int32_t n_heads;
    int32_t n_keys; /* of attention: n_past + n_tokens of the longest sequence, or more */
    const fastgpt_site_tap *sites; /* [n_sites] places whose values are wanted, in any order; NULL when n_sites is 0 */
    int32_t n_sites;
} fastgpt_taps;

/* ---- Changing a step: edits, hooks, a start in the middle ---- */

typedef enum fastgpt_edit_op {
    FASTGPT_EDIT_SET = 0, /* x = value */
    FASTGPT_EDIT_ADD = 1, /* x += value */
    FASTGPT_EDIT_SCALE = 2, /* x *= value */
    FASTGPT_EDIT_ZERO = 3, /* x = 0 */
    FASTGPT_EDIT_MEAN = 4, /* x = value, a mean over other inputs that the caller has taken */
    FASTGPT_EDIT_PROJECT_OUT = 5 /* x -= d (x . d) / (d . d), where d = value: nothing is left along d */
} fastgpt_edit_op;

/* Changes the values x of a site for some positions of one span, before anything else reads them.  Edits of one site
 * are made in the order of their list.
 *
 * A row of x is what the site has for one token, or with `head` that head's part of it: see fastgpt_site_width.  Of
 * scores and pattern a row is the keys of one head, n_past + n_tokens of the span, of which a token sees those up to
 * its own position; the others stay 0.  With head -1 each head's row is changed alike.  Weights of a pattern need not
 * sum to 1 afterwards.  A row of scores that is -infinity throughout attends to nothing: its pattern is 0. */
typedef struct fastgpt_edit {
    int32_t span; /* of the step */
    int32_t layer; /* in [0, n_layer); 0 for embed, pos_embed and ln_f */
    int32_t site; /* fastgpt_site */
    int32_t op; /* fastgpt_edit_op */
    int32_t head; /* of q, k, v, z, scores and pattern; -1 = all; for other sites -1 */
    int32_t first, last; /* positions [first, last] of the whole sequence; last -1 = its end.  Those before n_past are
                            done and stay as they are, but at least one must be in the step */
    int32_t n_rows; /* of value: 1, the same for all positions, or one for each of [first, last] */
    int32_t n_values; /* of a row of value: 1, the same for all of x, or the width of x; 0 for ZERO */
    const float *value; /* [n_rows][n_values], finite, but scores may be set or lowered to -infinity; NULL for ZERO */
} fastgpt_edit;

/* What a hook gets to read and to change: a site's values of the tokens of one span that are computed together, at most
 * n_batch.  value(h, t, i) = values[h * ld_head + t * ld + i]. */
typedef struct fastgpt_hook_values {
    size_t struct_size; /* of the library's version, which may be newer */
    int32_t site, layer, span;
    int32_t first; /* position of the first token in its sequence */
    int32_t n_tokens;
    int32_t n_rows; /* n_head for scores and pattern, else 1: there, heads are side by side */
    int32_t width; /* fastgpt_site_width; for scores and pattern first + n_tokens */
    int64_t ld, ld_head;
    float *values; /* scores of positions after the token's own are -infinity, and their pattern 0; neither is read */
} fastgpt_hook_values;

/* Is called in the thread that runs the step, once for each span of each slice.  Returns 0 to go on; anything else ends
 * the step with CANCELLED.  It must not use the step's context or caches. */
typedef int32_t (*fastgpt_hook_callback)(void *user, const fastgpt_hook_values *values);

typedef struct fastgpt_hook {
    int32_t site, layer; /* as in fastgpt_edit; its edits come first */
    fastgpt_hook_callback callback;
    void *user; /* is passed to it */
    float *buffer; /* for scores and pattern, which are nowhere in memory otherwise: [n_head][rows][n_keys], where rows
                      is n_batch, or the tokens of the step if they are fewer; other sites: NULL */
    int32_t n_keys; /* of buffer: n_past + n_tokens of the longest sequence, or more */
} fastgpt_hook;

/* Where a span of a step begins. */
typedef struct fastgpt_start {
    int32_t layer; /* in [0, n_layer]: layers below are not computed for the tokens of the span */
    const float *resid; /* [n_tokens][n_embd], finite: what resid_pre of that layer is to be, for n_layer the last
                           resid_post; NULL with layer 0 = the embeddings of the tokens */
} fastgpt_start;

/* Set struct_size to sizeof(fastgpt_step_options) and everything else to zero for the defaults. */
typedef struct fastgpt_step_options {
    size_t struct_size;
    int32_t all_logits; /* 1: logits after every token, not only after the last of each span */
    int32_t deterministic; /* 1: the logits of a token, and its keys and values, are the same bits however many tokens,
                              spans and slices share its step, where every step before it was deterministic too; on one
                              kind of CPU, that is one fastgpt_kernels_name.  Slower with many tokens */
    const fastgpt_taps *taps; /* NULL = none.  They change no logits, and are the same bits for any number of threads */
    const int32_t *stop; /* NULL, or a flag of this step alone, to be set by an atomic store: once it is not 0 the step
                            returns CANCELLED as fastgpt_cancel has it, which is for whatever step the context runs */
    const fastgpt_edit *edits; /* [n_edits] changes of what the step computes, each of one span; NULL when n_edits is 0.
                                  They never touch another span, and with `deterministic` an edit that sets what is
                                  there changes no bit */
    int32_t n_edits;
    int32_t n_hooks;
    const fastgpt_hook *hooks; /* [n_hooks] changes by functions of the caller, at most one for a site of a layer */
    const fastgpt_start *starts; /* NULL, or [n_spans] with layers that do not decrease from span to span.  Positions
                                    that skip layers have no keys and values there: later steps of such a cache must
                                    start at the same layer or above, until it is truncated to where they begin (see
                                    fastgpt_kv_cache_start_layer) */
    fastgpt_error *error; /* NULL, or receives in words what is wrong with taps, edits, hooks or starts */
} fastgpt_step_options;

/* Runs the model over new tokens of one or more sequences and appends their keys and values.
 * One span of many tokens is a prefill, one of one token a decode, many spans a ragged batch; all of
 * them share every matrix product.
 *   spans    [n_spans], each with a cache of its own
 *   options  NULL = defaults
 *   logits   [n_spans][n_vocab], row i follows the last token of span i; or with all_logits
 *            [sum of n_tokens][n_vocab] in the order of the tokens.  Natural-log units, unnormalised.
 *            NULL = only fill the caches.
 * Returns OK, ARGUMENT, N_TOKENS, TOKEN_RANGE, CONTEXT_FULL, CACHE_MISMATCH, CACHE_TWICE, THREADS, NUMBERS (a value of
 * an edit or a start is NaN or infinite), or CANCELLED: then every n_past is as it was before, and logits and taps are
 * undefined.  Allocates nothing. */
fastgpt_status fastgpt_step(fastgpt_context *ctx, const fastgpt_span *spans, int32_t n_spans,
                            const fastgpt_step_options *options, float *logits);

/* fastgpt_step with one span: logits [n_vocab] after the last token, or NULL. */
fastgpt_status fastgpt_prefill(fastgpt_context *ctx, fastgpt_kv_cache *kv, const int32_t *tokens, int32_t n_tokens,
                               float *logits);

/* fastgpt_step with one token. */
fastgpt_status fastgpt_decode(fastgpt_context *ctx, fastgpt_kv_cache *kv, int32_t token, float *logits);

/* The logits that residual vectors stand for, the output matrix times ln_f(x): of a tap's hidden [n_layer] those of the
 * step, of earlier layers what the model would say if it ended there (nostalgebraist 2020, "interpreting GPT: the logit
 * lens").  A row's bits depend on that row alone, and are those of a deterministic step.
 *   x       [n_rows][n_embd]
 *   logits  [n_rows][n_vocab], caller-owned; must not overlap x
 * Returns OK, ARGUMENT (also: n_rows <= 0) or THREADS.  Allocates nothing. */
fastgpt_status fastgpt_unembed(fastgpt_context *ctx, const float *x, int32_t n_rows, float *logits);

/* Makes the step that runs in ctx, or else its next one, return CANCELLED within about the time of one layer;
 * a step that was about to end returns OK instead.  May be called from any thread and from a signal handler. */
void fastgpt_cancel(fastgpt_context *ctx);

/* ---- Sampler: logits -> token ------------------------------------------------------------------- */

typedef struct fastgpt_sampler fastgpt_sampler;

/* What happens to logits, in this order.  It is that of Hugging Face transformers, which has no frequency and presence
 * penalty, top_n_sigma and mirostat: logit bias, repetition penalty, frequency and presence penalty; bans:
 * no_repeat_ngram_size, min_new_tokens, allowed tokens; temperature; filters: top_n_sigma, top_k, top_p, min_p,
 * typical_p, mirostat.  The zero of each field turns it off; with temperature 0 no filter matters.
 * Set struct_size to sizeof(fastgpt_sampler_params). */
typedef struct fastgpt_sampler_params {
    size_t struct_size;
    float temperature; /* up to 1e6: logits are divided by it; 0 = greedy: the largest logit, the first of equals */
    int32_t top_k; /* keep the k largest logits and whatever equals the last of them */
    float top_p; /* keep the likeliest tokens until their probabilities sum to top_p, in (0, 1].  Zero is off, as for
                    every field; what others mean by top_p = 0, the likeliest token alone, is FLT_MIN */
    float min_p; /* keep tokens at least min_p times as likely as the likeliest, in [0, 1] */
    float repetition_penalty; /* up to 1e6: logits of tokens in the history are divided (or, if negative,
                                 multiplied) by it (Keskar et al. 2019, arXiv 1909.05858); 1 = off */
    uint64_t seed; /* of the PCG32 generator (O'Neill 2014, XSH-RR 64/32), stream 54 */
    float typical_p; /* keep the tokens whose surprise -ln p is nearest to the entropy, until their probabilities sum to
                        typical_p, in (0, 1] (Meister et al. 2022, arXiv 2202.00666) */
    float top_n_sigma; /* up to 1e6: keep logits at most so many standard deviations of all logits that are not banned
                          below the largest; the same tokens at any temperature (Tang et al. 2024, arXiv 2411.07641) */
    float mirostat_tau; /* up to 1e6: bits of surprise aimed at.  Drops tokens of more than mu bits, and after each draw
                           lowers mu by mirostat_eta times the drawn token's excess over tau, in bits among the tokens
                           kept; mu begins at 2 tau (Basu et al. 2020, arXiv 2007.14966, as version 2.0 of its code) */
    float mirostat_eta; /* in [0, 1]; the paper takes 0.1 */
    float frequency_penalty; /* +-1e6: taken from a token's logit once for each time that it was taken before */
    float presence_penalty; /* +-1e6: taken from the logit of every token that was taken before; both as OpenAI's API
                               documents them: tokens of the prompt do not count */
    int32_t no_repeat_ngram_size; /* ban tokens that would make an n-gram of the history, prompt and all, come again */
    int32_t min_new_tokens; /* ban eos_token until so many tokens were taken */
    int32_t eos_token; /* in [0, n_vocab), -1 = none; looked at only where min_new_tokens > 0.  For several tokens see
                          fastgpt_sampler_set_eos_tokens */
} fastgpt_sampler_params;

/* The defaults of the Python package and of both commands: temperature 0.8, top_p 0.95, mirostat_eta 0.1 (which is
 * looked at only with mirostat_tau), eos_token -1, everything else off; seed 0.
 *   out  its struct_size is set to sizeof(fastgpt_sampler_params), and kept
 * Returns OK, or ARGUMENT: out is NULL, or no version had a struct of that size. */
fastgpt_status fastgpt_sampler_params_default(fastgpt_sampler_params *out);

/* params NULL = the defaults.  Returns OK, ARGUMENT (a value that is outside its range or not finite) or MEMORY. */
fastgpt_status fastgpt_sampler_create(int32_t n_vocab, const fastgpt_sampler_params *params, fastgpt_sampler **out);

/* The same, and in words what is wrong: which field, what it is and what it may be.
 *   error  NULL, or receives the details of any failure */
fastgpt_status fastgpt_sampler_create_checked(int32_t n_vocab, const fastgpt_sampler_params *params,
                                              fastgpt_sampler **out, fastgpt_error *error);
void fastgpt_sampler_free(fastgpt_sampler *sampler);
int32_t fastgpt_sampler_n_vocab(const fastgpt_sampler *sampler);
size_t fastgpt_sampler_sizeof(const fastgpt_sampler *sampler);

/* Adds bias to the token's logit before anything else; -infinity bans the token, 0 takes the bias back.
 * Returns OK, TOKEN_RANGE, or ARGUMENT for NaN and +infinity. */
fastgpt_status fastgpt_sampler_set_bias(fastgpt_sampler *sampler, int32_t token, float bias);

/* Allows only the tokens whose bit is set, from the next draw until another call; NULL = all.
 *   mask  [(n_vocab + 31) / 32], copied: token t is bit t % 32, the lowest first, of mask[t / 32]
 * Returns OK or ARGUMENT. */
fastgpt_status fastgpt_sampler_set_allowed(fastgpt_sampler *sampler, const uint32_t *mask);

/* What min_new_tokens bans from now on, in place of eos_token, as fastgpt_model_eos_tokens gives it.
 *   tokens  [n_tokens], copied; NULL when n_tokens is 0
 * Returns OK, ARGUMENT, TOKEN_RANGE or MEMORY; on error nothing changes. */
fastgpt_status fastgpt_sampler_set_eos_tokens(fastgpt_sampler *sampler, const int32_t *tokens, int32_t n_tokens);

/* Adds tokens that were taken to the history, which penalties, no_repeat_ngram_size and min_new_tokens look at;
 * fastgpt_sampler_sample does not do it by itself.  Returns OK, ARGUMENT, TOKEN_RANGE or MEMORY; only
 * no_repeat_ngram_size lets the history grow, by 8 bytes a token at most. */
fastgpt_status fastgpt_sampler_accept(fastgpt_sampler *sampler, const int32_t *tokens, int32_t n_tokens);

/* The same for the prompt, once: repetition_penalty and no_repeat_ngram_size see its tokens, while frequency_penalty,
 * presence_penalty and min_new_tokens do not count them. */
fastgpt_status fastgpt_sampler_accept_prompt(fastgpt_sampler *sampler, const int32_t *tokens, int32_t n_tokens);

/* Empties the history and starts generator and mirostat again from the parameters; biases and allowed tokens stay. */
fastgpt_status fastgpt_sampler_reset(fastgpt_sampler *sampler);

/* Draws the next token from logits [n_vocab].  The same logits, parameters and history give the same
 * sequence of draws on every machine.  Returns OK, ARGUMENT or LOGITS; on error no draw is used up. */
fastgpt_status fastgpt_sampler_sample(fastgpt_sampler *sampler, const float *logits, int32_t *token);

/* The distribution that fastgpt_sampler_sample would draw from: probabilities [n_vocab], 0 for tokens
 * that were filtered out, summing to 1.  Draws nothing.  Returns OK, ARGUMENT or LOGITS. */
fastgpt_status fastgpt_sampler_probabilities(fastgpt_sampler *sampler, const float *logits, float *probabilities);

/* Logits [n_vocab] after bias, penalties and bans, before temperature and filters, for searches that compare whole
 * texts: banned tokens get -infinity, and it may be that all are.
 *   adjusted  [n_vocab], may be logits themselves
 * Draws nothing.  Returns OK, ARGUMENT, or LOGITS for NaN and +infinity; then adjusted is unchanged. */
fastgpt_status fastgpt_sampler_adjust(fastgpt_sampler *sampler, const float *logits, float *adjusted);

/* The next tokens of a batch: for each row, fastgpt_sampler_sample and then fastgpt_sampler_accept of what it drew, by
 * the threads of a pool.  Gives what those two give, one row after the other.
 *   pool      NULL = the calling thread alone
 *   samplers  [n_rows], each with that n_vocab and none of them twice; a row whose sampler is NULL is left out
 *   logits    [n_rows][n_vocab], as fastgpt_step leaves them
 *   tokens    [n_rows], in the rows that are not left out; -1 where fastgpt_sampler_sample refuses the logits,
 *             or there is no memory for the history that no_repeat_ngram_size needs
 * Returns OK, ARGUMENT or THREADS.  Allocates nothing but that history. */
fastgpt_status fastgpt_sample_rows(fastgpt_pool *pool, fastgpt_sampler *const *samplers, int32_t n_rows,
                                   int32_t n_vocab, const float *logits, int32_t *tokens);

/* ---- Tokenizer: text <-> tokens.  Immutable, any thread ------------------------------------------ */

/* Byte-level BPE as in GPT-2 (Radford et al. 2019, section 2.2): text is cut into pieces by GPT-2's pattern, and the
 * bytes of a piece are merged, lowest rank first.  Letters, numbers and spaces are those of Unicode
 * fastgpt_unicode_version().
 *
 * Text is UTF-8.  A byte that is not UTF-8 is kept, and cuts text as a mark does: neither letter nor number nor space.
 * So the bytes of the tokens of any text are the text again. */
typedef struct fastgpt_tokenizer fastgpt_tokenizer;

/* "18.0.0": static storage. */
const char *fastgpt_unicode_version(void);

/* The tokenizer of a model file; the model may be freed before it.  Takes some milliseconds for GPT-2's 50257 tokens.
 *   error  NULL, or receives the details of any failure
 * Returns OK, ARGUMENT, MEMORY, UNSUPPORTED (the file has no tokenizer) or FORMAT: two tokens with one text, a merge
 * that is not two tokens whose join is a token, a control or user-defined token of more than 256 bytes, or texts made
 * to collide in a hash table. */
fastgpt_status fastgpt_tokenizer_create(const fastgpt_model *model, fastgpt_tokenizer **out, fastgpt_error *error);

/* The same from lists as fastgpt_model_tokens, _merges and _token_types give them; all of them are copied.
 *   token_types  [tokens->n], or NULL = all normal
 * Returns also ARGUMENT for offsets that fall. */
fastgpt_status fastgpt_tokenizer_create_from(const fastgpt_strings *tokens, const fastgpt_strings *merges,
                                             const int32_t *token_types, fastgpt_tokenizer **out, fastgpt_error *error);
void fastgpt_tokenizer_free(fastgpt_tokenizer *tokenizer);
int32_t fastgpt_tokenizer_n_vocab(const fastgpt_tokenizer *tokenizer);
size_t fastgpt_tokenizer_sizeof(const fastgpt_tokenizer *tokenizer);

typedef enum fastgpt_encode_flags {
    FASTGPT_ENCODE_SPECIAL = 0, /* the text of a control token ("<|endoftext|>") is that token, the leftmost first and
                                   of those the longest; then, between them, that of a user-defined token likewise.  A
                                   file may name other tokens for the second search than the user-defined ones, under
                                   the key fastgpt.tokenizer.normalized_tokens */
    FASTGPT_ENCODE_LITERAL = 1 /* it is text like any other: for text from strangers */
} fastgpt_encode_flags;

/* Tokens of a text.  Time O(n log n) for n bytes, whatever they are; at most 48 bytes of memory for each byte of the
 * longest piece (a run of letters, of spaces ...) during the call.
 *   text      [n_bytes], n_bytes <= INT32_MAX; need not be NUL-terminated; NULL when n_bytes is 0
 *   flags     fastgpt_encode_flags
 *   tokens    [capacity], caller-owned; capacity = n_bytes is always enough.  NULL when capacity is 0
 *   n_tokens  receives their number
 * Returns OK, ARGUMENT, MEMORY, NO_TOKEN, or CAPACITY: then *n_tokens is the number that is needed.  After NO_TOKEN and
 * MEMORY *n_tokens is 0; after any of these three, what tokens hold is undefined. */
fastgpt_status fastgpt_encode(const fastgpt_tokenizer *tokenizer, const char *text, size_t n_bytes, int32_t flags,
                              int32_t *tokens, int32_t capacity, int32_t *n_tokens);

/* The bytes that tokens stand for, end to end and not NUL-terminated.  They need not be whole characters: a stream
 * gives those.  Unused tokens stand for no bytes.
 *   bytes    [capacity], caller-owned; NULL when capacity is 0
 *   n_bytes  receives their number
 * Returns OK, ARGUMENT, TOKEN_RANGE, or CAPACITY: then *n_bytes is the number that is needed; bytes are unchanged. */
fastgpt_status fastgpt_detokenize(const fastgpt_tokenizer *tokenizer, const int32_t *tokens, int32_t n_tokens,
                                  char *bytes, size_t capacity, size_t *n_bytes);

/* ---- Stream: tokens in, whole characters out.  One thread at a time ------------------------------ */

typedef struct fastgpt_stream fastgpt_stream;

/* Free it before its tokenizer.  Returns OK, ARGUMENT or MEMORY. */
fastgpt_status fastgpt_stream_create(const fastgpt_tokenizer *tokenizer, fastgpt_stream **out);
void fastgpt_stream_free(fastgpt_stream *stream);
size_t fastgpt_stream_sizeof(const fastgpt_stream *stream);

/* The characters that token completes: always valid UTF-8, *n_bytes 0 when there is none yet.  Bytes that are not UTF-8
 * become U+FFFD, one for each maximal part of a character (Unicode 14, section 3.9), as in Python's
 * bytes.decode(errors="replace").
 *   text  receives a pointer into the stream, valid until its next call; NUL-terminated besides
 * Returns OK, ARGUMENT or TOKEN_RANGE; on error nothing is lost.  Allocates nothing. */
fastgpt_status fastgpt_stream_push(fastgpt_stream *stream, int32_t token, const char **text, size_t *n_bytes);

/* What is left of an incomplete character, as U+FFFD, else nothing; the stream then starts anew. */
fastgpt_status fastgpt_stream_finish(fastgpt_stream *stream, const char **text, size_t *n_bytes);

/* ---- Generation: prompt in, text out -------------------------------------------------------------- */

/* Receives text as it comes: once for each new token, with the characters that it completes (n_bytes 0 when there is
 * none yet), and once more with token -1 when an incomplete character is left at the end.
 *   user  what fastgpt_generate was given
 *   text  [n_bytes] whole characters in UTF-8, NUL-terminated besides; valid during the call
 * Returns 0 to go on, anything else to end the text here. */
typedef int32_t (*fastgpt_piece_callback)(void *user, int32_t token, const char *text, size_t n_bytes);

/* Appends prompt [n_prompt] to kv, then draws tokens until there are max_new_tokens, or one of the model's end-of-text
 * tokens is drawn (it is no part of the text), or the callback ends it.  Prompt and drawn tokens go into the sampler's
 * history.  Afterwards kv holds the prompt and every token drawn but the last.
 *   tokenizer    of the same model; sampler likewise
 *   callback     NULL = none; user is passed to it
 *   n_generated  NULL, or receives the number of new tokens, without the end-of-text token
 * Returns OK; ARGUMENT (also: n_vocab of sampler or tokenizer is not the model's), MEMORY, N_TOKENS (an empty prompt),
 * TOKEN_RANGE, CONTEXT_FULL (n_past + n_prompt + max_new_tokens > n_ctx), CACHE_MISMATCH, THREADS, CANCELLED (through
 * fastgpt_cancel), LOGITS.  On error kv is as it was before, although text may have come. */
fastgpt_status fastgpt_generate(fastgpt_context *ctx, fastgpt_kv_cache *kv, fastgpt_sampler *sampler,
                                const fastgpt_tokenizer *tokenizer, const int32_t *prompt, int32_t n_prompt,
                                int32_t max_new_tokens, fastgpt_piece_callback callback, void *user,
                                int32_t *n_generated);

/* ---- Generator: all of that in one handle.  One thread at a time ----------------------------------- */

/* A model with tokenizer, sampler, threads, context and a KV cache that holds what was said: each call appends a text
 * and what the model makes of it, so that a chat goes on where it was, and reads nothing twice.
 *
 *     fastgpt_generator_open("model.gguf", NULL, &generator, &error);
 *     fastgpt_generator_continue(generator, text, n_bytes, print_piece, NULL, &error);
 */
typedef struct fastgpt_generator fastgpt_generator;

/* What happens when the tokens that were said, those of the text and max_new_tokens are more than n_ctx. */
typedef enum fastgpt_overflow {
    FASTGPT_OVERFLOW_ERROR = 0, /* CONTEXT_FULL */
    FASTGPT_OVERFLOW_TRUNCATE = 1, /* the oldest tokens are forgotten until all fit; CONTEXT_FULL where max_new_tokens
                                      alone are n_ctx or more */
    FASTGPT_OVERFLOW_SLIDE = 2 /* whenever the cache is full, the older half is forgotten */
} fastgpt_overflow;

/* Set struct_size to sizeof(fastgpt_generator_options) and everything else to zero for the defaults. */
typedef struct fastgpt_generator_options {
    size_t struct_size;
    const fastgpt_sampler_params *sampling; /* NULL = those of fastgpt_sampler_params_default; copied.  min_new_tokens
                                               bans the model's end tokens, whatever eos_token is */
    int32_t n_threads; /* as fastgpt_pool_create has them: 0 = the usable cores */
    int32_t n_ctx; /* positions of the KV cache, 0 = the model's own */
    int32_t kv_type; /* fastgpt_type of the KV cache: F32 = 0, F16, BF16, Q8_0; -1 = fastgpt_model_kv_type */
    int32_t max_new_tokens; /* of each call; 0 = 100 */
    int32_t overflow; /* fastgpt_overflow */
    int32_t encode_flags; /* fastgpt_encode_flags of the texts; LITERAL for those of strangers */
    int32_t log_probs; /* 1: a piece has the log-probability of its token */
    int32_t n_likeliest; /* and so many likeliest tokens with theirs, in [0, 100] */
    int32_t n_stop;
    const char *const *stop; /* [n_stop] NUL-terminated UTF-8, copied: the first of them to come ends a text; it is not
                                shown, and not said */
} fastgpt_generator_options;

/* Text as it comes.  All pointers are valid during the call. */
typedef struct fastgpt_piece {
    size_t struct_size; /* of the library's version, which may be newer */
    const char *text; /* [n_bytes] whole characters in UTF-8, NUL-terminated besides, none of them of a stop string */
    size_t n_bytes; /* 0 while characters are incomplete, or may be the beginning of a stop string */
    int32_t token; /* -1 for what is left at the end */
    float log_prob; /* of token: ln p by the model's logits, before sampling changes them; 0 without log_probs */
    int32_t n_likeliest;
    const int32_t *likeliest; /* [n_likeliest], best first */
    const float *likeliest_log_probs; /* [n_likeliest] */
} fastgpt_piece;

/* Is called once for each new token, and once more with token -1 when text is left at the end.
 * Returns 0 to go on, anything else to end the text here. */
typedef int32_t (*fastgpt_generator_callback)(void *user, const fastgpt_piece *piece);

/* Why a text ended.  Values are fixed for ever. */
typedef enum fastgpt_finish_reason {
    FASTGPT_FINISH_NONE = 0, /* there was no text yet, or the last call failed */
    FASTGPT_FINISH_LENGTH = 1, /* max_new_tokens */
    FASTGPT_FINISH_EOS = 2, /* one of the model's end-of-text tokens, which is not shown, and not said */
    FASTGPT_FINISH_STOP = 3, /* one of the stop strings */
    FASTGPT_FINISH_CALLBACK = 4 /* the callback */
} fastgpt_finish_reason;

/* A generator of a model, which must outlive it, or of a model file, which it loads and frees.
 *   options  NULL = defaults
 *   error    NULL, or receives the details of any failure: which option, what it is and what it may be
 * Returns OK, ARGUMENT, MEMORY, what fastgpt_tokenizer_create returns, and for a file what fastgpt_model_load does. */
fastgpt_status fastgpt_generator_create(const fastgpt_model *model, const fastgpt_generator_options *options,
                                        fastgpt_generator **out, fastgpt_error *error);
fastgpt_status fastgpt_generator_open(const char *path, const fastgpt_generator_options *options,
                                      fastgpt_generator **out, fastgpt_error *error);
void fastgpt_generator_free(fastgpt_generator *generator);

/* Appends text [n_bytes] to what was said, then draws tokens and appends them, until there is a fastgpt_finish_reason.
 * A first text that is empty becomes the end-of-text token; a later one may be empty, and the model goes on by itself.
 * Penalties see all that was said; random numbers go on from call to call.
 *   text      UTF-8, need not be NUL-terminated; NULL when n_bytes is 0
 *   callback  NULL = none; user is passed to it
 *   error     NULL, or receives the details of any failure
 * Returns OK, ARGUMENT, MEMORY, N_TOKENS (nothing to begin with), CONTEXT_FULL (as fastgpt_overflow has it), NO_TOKEN,
 * THREADS, CANCELLED, LOGITS.  On error what was said is as it was before, although text may have come. */
fastgpt_status fastgpt_generator_continue(fastgpt_generator *generator, const char *text, size_t n_bytes,
                                          fastgpt_generator_callback callback, void *user, fastgpt_error *error);

/* Forgets all that was said, and starts the random numbers again from the seed.  Returns OK or ARGUMENT. */
fastgpt_status fastgpt_generator_reset(fastgpt_generator *generator);

/* As fastgpt_cancel: from any thread, and from a signal handler. */
void fastgpt_generator_cancel(fastgpt_generator *generator);

/* The model, for its sizes and keys; it is freed with a generator that loaded it. */
const fastgpt_model *fastgpt_generator_model(const fastgpt_generator *generator);

/* [*n_tokens] what was said, from the oldest token that is not forgotten; valid until the next call. */
const int32_t *fastgpt_generator_tokens(const fastgpt_generator *generator, int32_t *n_tokens);

/* Of the last call: tokens drawn, without the one that ends a text and with those of a stop string; and why it ended.
 */
int32_t fastgpt_generator_n_generated(const fastgpt_generator *generator);
fastgpt_finish_reason fastgpt_generator_finish_reason(const fastgpt_generator *generator);

/* ---- Profile: where the time of a context's steps goes -------------------------------------------- */

/* The parts of a step, in its order; what a tap copies counts to the op before it.  Values are fixed for ever. */
typedef enum fastgpt_op {
    FASTGPT_OP_EMBED = 0,
    FASTGPT_OP_LN_1 = 1, /* this and the next seven: once for each layer */
    FASTGPT_OP_QKV = 2, /* with the writing of keys and values into the caches */
    FASTGPT_OP_ATTENTION = 3,
    FASTGPT_OP_ATTN_PROJ = 4, /* with the addition to the residual stream */
    FASTGPT_OP_LN_2 = 5,
    FASTGPT_OP_FC = 6,
    FASTGPT_OP_GELU = 7, /* or the model's other activation, counted alike */
    FASTGPT_OP_PROJ = 8, /* with the addition to the residual stream */
    FASTGPT_OP_LN_F = 9,
    FASTGPT_OP_LM_HEAD = 10,
    FASTGPT_OP_SAMPLE = 11, /* fastgpt_profile_sample, fastgpt_profile_sample_rows; not a part of a step's time */
    FASTGPT_OP_OTHER = 12, /* the rest of a step's time */
    FASTGPT_OP_LAYER = 13, /* in events alone: a whole layer */
    FASTGPT_OP_STEP = 14 /* in events alone: a whole step */
} fastgpt_op;

/* "embed", "ln_1" and so on; "unknown" for any other value.  Static storage. */
const char *fastgpt_op_name(fastgpt_op op);

/* A step whose spans all have one token is a decode, every other one a prefill. */
typedef enum fastgpt_phase { FASTGPT_PHASE_PREFILL = 0, FASTGPT_PHASE_DECODE = 1 } fastgpt_phase;

/* Sums over all calls of one op in one layer in one phase.
 *
 * bytes and operations are what the op needs, counted by these formulas for each call, not measured.  A call has n
 * tokens (of a slice), or n rows of logits for ln_f, lm_head and sample.  E = n_embd, F = n_ff, V = n_vocab; |w| = the
 * bytes of a weight matrix and its bias as they lie in memory; |row| = the bytes of a row of E numbers of the cache's
 * type:
 *
 *     op               bytes                                        operations
 *     embed            n (row of wte + row of wpe + 4 E)            n E
 *     ln_1 ln_2 ln_f   8 n E + 8 E                                  7 n E
 *     qkv              |w| + 8 n E + 2 n |row|                      6 n E E
 *     attention        8 n E + sum 2 (n_past + n_tokens) |row|      4 E sum of keys that each token sees
 *     attn_proj        |w| + 12 n E                                 2 n E E
 *     fc               |w| + 4 n E + 4 n F                          2 n E F
 *     gelu             8 n F                                        9 n F
 *     proj             |w| + 4 n F + 8 n E                          2 n E F
 *     lm_head          |w| + 4 n E + 4 n V                          2 n E V
 *     sample           4 n V                                        0
 *
 * Where an activation is computed on the way out of fc, as in products of many BF16 numbers, its time is part of fc's,
 * and gelu has about none of its own.
 *
 * So weights, and the past of each span, count once a slice (and a prefix once for neighbours that share it), and
 * activations in F32 once where they are read and once where they are written; what a kernel keeps in scratch memory,
 * reads again or finds in a CPU cache is not counted. A multiply-add is two operations; biases and softmax are not
 * counted. */
typedef struct fastgpt_profile_record {
    int32_t phase; /* fastgpt_phase */
    int32_t layer; /* -1 outside of layers */
    int32_t op; /* fastgpt_op */
    int64_t calls;
    int64_t ns; /* of the thread that called the step: until the slowest thread was done */
    int64_t best_ns; /* of the fastest call: what other programs disturbed least */
    int64_t bytes;
    int64_t operations;
} fastgpt_profile_record;

/* One call of an op, seen from one thread.  Thread 0 called the step: its events are those of the records, with layers
 * around their ops and steps around their layers.  The events of other threads last from the beginning of the thread's
 * first unit of the op to the end of its last. */
typedef struct fastgpt_profile_event {
    int64_t start_ns; /* of a clock that never goes back; only differences mean anything */
    int64_t end_ns;
    int32_t step; /* 0 for the first step of the profile; a sample has the step that it follows */
    int32_t phase; /* fastgpt_phase of the step */
    int32_t n_tokens; /* of the step, all spans together */
    int32_t thread; /* in [0, n_threads) */
    int32_t layer; /* -1 outside of layers */
    int32_t op; /* fastgpt_op */
} fastgpt_profile_event;

typedef struct fastgpt_profile_phase {
    int64_t n_steps;
    int64_t n_tokens;
    int64_t ns; /* wall time of the steps = the sum of the phase's records without sample */
} fastgpt_profile_phase;

typedef struct fastgpt_profile_summary {
    fastgpt_profile_phase prefill, decode;
    int64_t n_events_lost; /* the oldest ones, for which there was no room any more */
} fastgpt_profile_summary;

/* Profiles the steps of ctx from now on, from zero.
 *   n_events  events to keep, 40 bytes each; the newest stay.  0 = records alone.  A step makes about
 *             n_layer * (8 n_threads + 1) of them for each slice
 * Until fastgpt_profile_stop, or for ever; a step that is cancelled counts with what it did.  Results do not change.
 * Returns OK, ARGUMENT, or MEMORY: then an earlier profile is still there. */
fastgpt_status fastgpt_profile_start(fastgpt_context *ctx, int32_t n_events);

/* Stops, and keeps what there is until the next start. */
void fastgpt_profile_stop(fastgpt_context *ctx);

/* fastgpt_sampler_sample, whose time counts as op sample, and to the phase of the step before it, while ctx is
 * profiled.  Returns as that does, and ARGUMENT for ctx NULL. */
fastgpt_status fastgpt_profile_sample(fastgpt_context *ctx, fastgpt_sampler *sampler, const float *logits,
                                      int32_t *token);

/* fastgpt_sample_rows with the pool of ctx and the n_vocab of its model: one call of op sample while ctx is profiled,
 * whose n counts the rows that are not left out.  Returns as that does, and ARGUMENT for ctx NULL. */
fastgpt_status fastgpt_profile_sample_rows(fastgpt_context *ctx, fastgpt_sampler *const *samplers, int32_t n_rows,
                                           const float *logits, int32_t *tokens);

/* All zero before the first start.  Returns OK or ARGUMENT. */
fastgpt_status fastgpt_profile_summarize(const fastgpt_context *ctx, fastgpt_profile_summary *out);

/* Copies the records out: by phase, then in the order of a step; those with no call are left out.
 *   records    [capacity], caller-owned; NULL when capacity is 0
 *   n_records  receives their number
 * Returns OK, ARGUMENT, or CAPACITY: then *n_records is the number that is needed; records are unchanged. */
fastgpt_status fastgpt_profile_records(const fastgpt_context *ctx, fastgpt_profile_record *records, int32_t capacity,
                                       int32_t *n_records);

/* The same for events, in the order in which they ended as thread 0 saw it. */
fastgpt_status fastgpt_profile_events(const fastgpt_context *ctx, fastgpt_profile_event *events, int32_t capacity,
                                      int32_t *n_events);

/* ---- Roofline: the ceiling of this machine ------------------------------------------------------ */

/* Williams, Waterman and Patterson 2009, "Roofline": work that moves b bytes and does n operations takes at least
 * b / read_bytes_per_second and n / ..._operations_per_second seconds.  A multiply-add is two operations. */
typedef struct fastgpt_roofline {
    int32_t n_threads;
    double read_bytes_per_second; /* from memory, by an array far larger than the caches */
    double f32_operations_per_second; /* multiply-adds of the kernels' instruction set */
    double bf16_operations_per_second; /* its dot products of bf16 summed in f32, 0 where it has none */
    double int8_operations_per_second; /* its dot products of int8 summed in int32, 0 where it has none */
} fastgpt_roofline;

/* Measures with all threads of the pool, NULL = the calling thread, in windows of about a millisecond, of which the
 * best counts: others may use the machine as well.  Takes some tenths of a second, and for that time 256 MiB, or 8
 * times a larger last-level cache, 1 GiB at most.  On error *out is all zero.
 * Returns OK, ARGUMENT (out is NULL, or FASTGPT_ISA names no kernels), MEMORY or THREADS. */
fastgpt_status fastgpt_measure_roofline(fastgpt_pool *pool, fastgpt_roofline *out);

/* Bytes of weights that any step reads: all but the embeddings of the tokens and positions that are not in it. */
int64_t fastgpt_model_step_bytes(const fastgpt_model *model);

/* cdef:end */

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
