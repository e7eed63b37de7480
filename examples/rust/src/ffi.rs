//! The functions of fastgpt.h that lib.rs wraps, as C sees them.
use std::ffi::{c_char, c_int, c_void};

/// A handle that only C looks into.
#[repr(C)]
pub struct Opaque {
    _private: [u8; 0],
}

#[repr(C)]
pub struct ErrorText {
    pub text: [c_char; 512],
}

#[repr(C)]
pub struct SamplerParams {
    pub struct_size: usize,
    pub temperature: f32,
    pub top_k: i32,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub seed: u64,
}

pub const ENCODE_LITERAL: i32 = 1;
pub const ERR_CAPACITY: c_int = 14;

pub type PieceCallback = extern "C" fn(*mut c_void, i32, *const c_char, usize) -> i32;

extern "C" {
    pub fn fastgpt_status_text(status: c_int) -> *const c_char;
    pub fn fastgpt_model_load(
        path: *const c_char, options: *const c_void, out: *mut *mut Opaque, error: *mut ErrorText,
    ) -> c_int;
    pub fn fastgpt_model_free(model: *mut Opaque);
    pub fn fastgpt_model_n_vocab(model: *const Opaque) -> i32;
    pub fn fastgpt_kv_cache_create(model: *const Opaque, n_ctx: i32, out: *mut *mut Opaque) -> c_int;
    pub fn fastgpt_kv_cache_free(kv: *mut Opaque);
    pub fn fastgpt_kv_cache_truncate(kv: *mut Opaque, n_past: i32) -> c_int;
    pub fn fastgpt_context_create(
        model: *const Opaque, pool: *mut Opaque, n_batch: i32, out: *mut *mut Opaque,
    ) -> c_int;
    pub fn fastgpt_context_free(ctx: *mut Opaque);
    pub fn fastgpt_prefill(
        ctx: *mut Opaque, kv: *mut Opaque, tokens: *const i32, n_tokens: i32, logits: *mut f32,
    ) -> c_int;
    pub fn fastgpt_sampler_create(n_vocab: i32, params: *const SamplerParams, out: *mut *mut Opaque) -> c_int;
    pub fn fastgpt_sampler_free(sampler: *mut Opaque);
    pub fn fastgpt_sampler_probabilities(sampler: *mut Opaque, logits: *const f32, probabilities: *mut f32) -> c_int;
    pub fn fastgpt_tokenizer_create(model: *const Opaque, out: *mut *mut Opaque, error: *mut ErrorText) -> c_int;
    pub fn fastgpt_tokenizer_free(tokenizer: *mut Opaque);
    pub fn fastgpt_encode(
        tokenizer: *const Opaque, text: *const c_char, n_bytes: usize, flags: i32, tokens: *mut i32, capacity: i32,
        n_tokens: *mut i32,
    ) -> c_int;
    pub fn fastgpt_detokenize(
        tokenizer: *const Opaque, tokens: *const i32, n_tokens: i32, bytes: *mut c_char, capacity: usize,
        n_bytes: *mut usize,
    ) -> c_int;
    pub fn fastgpt_generate(
        ctx: *mut Opaque, kv: *mut Opaque, sampler: *mut Opaque, tokenizer: *const Opaque, prompt: *const i32,
        n_prompt: i32, max_new_tokens: i32, callback: PieceCallback, user: *mut c_void, n_generated: *mut i32,
    ) -> c_int;
}
