//! A safe face of fastgpt.h: handles that free themselves, `Result` instead of statuses.
//!
//! A `Context` borrows its `Model`, so that the compiler keeps the model alive.  A `Model` and a `Tokenizer` may be
//! shared by threads; what changes needs `&mut`.
mod ffi;

use std::any::Any;
use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::fmt;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::ptr;

#[derive(Debug)]
pub struct Error {
    pub status: i32,
    pub text: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

fn words(text: *const c_char) -> String {
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn check(status: c_int) -> Result<()> {
    match status {
        0 => Ok(()),
        _ => Err(Error { status, text: words(unsafe { ffi::fastgpt_status_text(status) }) }),
    }
}

/// Lengths are 32 bits wide in C; a longer slice is too long for any model.
fn length(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| Error { status: 1, text: format!("{n} elements are too many") })
}

/// Calls a function that fills in a handle, and tells what it says about a failure.
fn create(f: impl FnOnce(*mut *mut ffi::Opaque, *mut ffi::ErrorText) -> c_int) -> Result<*mut ffi::Opaque> {
    let mut handle = ptr::null_mut();
    let mut why = ffi::ErrorText { text: [0; 512] };
    let result = check(f(&mut handle, &mut why));
    match result {
        Err(Error { status, .. }) if why.text[0] != 0 => Err(Error { status, text: words(why.text.as_ptr()) }),
        other => other.map(|()| handle),
    }
}

pub struct Model(*mut ffi::Opaque);
unsafe impl Send for Model {}
unsafe impl Sync for Model {}

impl Model {
    pub fn load(path: &str) -> Result<Model> {
        let path = CString::new(path).map_err(|e| Error { status: 1, text: e.to_string() })?;
        create(|out, why| unsafe { ffi::fastgpt_model_load(path.as_ptr(), ptr::null(), out, why) }).map(Model)
    }

    pub fn n_vocab(&self) -> usize {
        unsafe { ffi::fastgpt_model_n_vocab(self.0) as usize }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        unsafe { ffi::fastgpt_model_free(self.0) }
    }
}

/// Keys and values of one sequence.
pub struct KvCache(*mut ffi::Opaque);
unsafe impl Send for KvCache {}

impl KvCache {
    /// As many positions as the model was trained for.
    pub fn new(model: &Model) -> Result<KvCache> {
        create(|out, _| unsafe { ffi::fastgpt_kv_cache_create(model.0, 0, out) }).map(KvCache)
    }

    pub fn truncate(&mut self, n_past: usize) -> Result<()> {
        check(unsafe { ffi::fastgpt_kv_cache_truncate(self.0, length(n_past)?) })
    }
}

impl Drop for KvCache {
    fn drop(&mut self) {
        unsafe { ffi::fastgpt_kv_cache_free(self.0) }
    }
}

/// Filters of the next token; see fastgpt_sampler_params.  Zeros are off, and the default is greedy.
#[derive(Default)]
pub struct Params {
    pub temperature: f32,
    pub top_k: i32,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub seed: u64,
}

pub struct Sampler {
    handle: *mut ffi::Opaque,
    n_vocab: usize,
}
unsafe impl Send for Sampler {}

impl Sampler {
    pub fn new(n_vocab: usize, params: Params) -> Result<Sampler> {
        let Params { temperature, top_k, top_p, min_p, repetition_penalty, seed } = params;
        let struct_size = std::mem::size_of::<ffi::SamplerParams>();
        let params = ffi::SamplerParams { struct_size, temperature, top_k, top_p, min_p, repetition_penalty, seed };
        let n = length(n_vocab)?;
        let handle = create(|out, _| unsafe { ffi::fastgpt_sampler_create(n, &params, out) })?;
        Ok(Sampler { handle, n_vocab })
    }

    /// The distribution that the next token would be drawn from, for logits [n_vocab].
    pub fn probabilities(&mut self, logits: &[f32]) -> Result<Vec<f32>> {
        assert_eq!(logits.len(), self.n_vocab, "logits of another model");
        let mut p = vec![0.0; self.n_vocab];
        check(unsafe { ffi::fastgpt_sampler_probabilities(self.handle, logits.as_ptr(), p.as_mut_ptr()) })?;
        Ok(p)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        unsafe { ffi::fastgpt_sampler_free(self.handle) }
    }
}

pub struct Tokenizer(*mut ffi::Opaque);
unsafe impl Send for Tokenizer {}
unsafe impl Sync for Tokenizer {}

impl Tokenizer {
    pub fn new(model: &Model) -> Result<Tokenizer> {
        create(|out, why| unsafe { ffi::fastgpt_tokenizer_create(model.0, out, why) }).map(Tokenizer)
    }

    /// The text of a control token such as <|endoftext|> is text like any other.
    pub fn encode(&self, text: &str) -> Result<Vec<i32>> {
        let mut tokens = vec![0; text.len()];
        let (bytes, capacity, mut n) = (text.as_ptr().cast(), length(text.len())?, 0);
        let (out, flags) = (tokens.as_mut_ptr(), ffi::ENCODE_LITERAL);
        check(unsafe { ffi::fastgpt_encode(self.0, bytes, text.len(), flags, out, capacity, &mut n) })?;
        tokens.truncate(n as usize);
        Ok(tokens)
    }

    /// Bytes, which need not be whole characters.
    pub fn decode(&self, tokens: &[i32]) -> Result<Vec<u8>> {
        let (from, n, mut n_bytes) = (tokens.as_ptr(), length(tokens.len())?, 0);
        let status = unsafe { ffi::fastgpt_detokenize(self.0, from, n, ptr::null_mut(), 0, &mut n_bytes) };
        if status != ffi::ERR_CAPACITY {
            return check(status).map(|()| Vec::new());
        }
        let mut bytes = vec![0; n_bytes];
        let out = bytes.as_mut_ptr().cast();
        check(unsafe { ffi::fastgpt_detokenize(self.0, from, n, out, n_bytes, &mut n_bytes) })?;
        Ok(bytes)
    }
}

impl Drop for Tokenizer {
    fn drop(&mut self) {
        unsafe { ffi::fastgpt_tokenizer_free(self.0) }
    }
}

/// The scratch memory of steps, which run in the calling thread.
pub struct Context<'m> {
    handle: *mut ffi::Opaque,
    n_vocab: usize,
    model: PhantomData<&'m Model>,
}
unsafe impl Send for Context<'_> {}

impl<'m> Context<'m> {
    pub fn new(model: &'m Model) -> Result<Context<'m>> {
        let handle = create(|out, _| unsafe { ffi::fastgpt_context_create(model.0, ptr::null_mut(), 0, out) })?;
        Ok(Context { handle, n_vocab: model.n_vocab(), model: PhantomData })
    }

    /// Appends tokens to kv; logits [n_vocab] after the last one.
    pub fn prefill(&mut self, kv: &mut KvCache, tokens: &[i32]) -> Result<Vec<f32>> {
        let mut logits = vec![0.0; self.n_vocab];
        let (from, n, out) = (tokens.as_ptr(), length(tokens.len())?, logits.as_mut_ptr());
        check(unsafe { ffi::fastgpt_prefill(self.handle, kv.0, from, n, out) })?;
        Ok(logits)
    }

    /// Appends the prompt and new tokens to kv, and hands text to on_text as it comes, which may break it off.
    pub fn generate(
        &mut self, kv: &mut KvCache, sampler: &mut Sampler, tokenizer: &Tokenizer, prompt: &[i32], max_new_tokens: i32,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<usize> {
        let mut call = Call { on_text: &mut on_text, panicked: None };
        let (from, n_prompt, mut n) = (prompt.as_ptr(), length(prompt.len())?, 0);
        let user = (&mut call as *mut Call).cast();
        let status = unsafe {
            let (s, t) = (sampler.handle, tokenizer.0);
            ffi::fastgpt_generate(self.handle, kv.0, s, t, from, n_prompt, max_new_tokens, on_piece, user, &mut n)
        };
        if let Some(panic) = call.panicked {
            resume_unwind(panic);
        }
        check(status).map(|()| n as usize)
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        unsafe { ffi::fastgpt_context_free(self.handle) }
    }
}

struct Call<'a> {
    on_text: &'a mut dyn FnMut(&str) -> ControlFlow<()>,
    panicked: Option<Box<dyn Any + Send>>,
}

/// A panic must not cross C: it waits in the Call until C has returned.
extern "C" fn on_piece(user: *mut c_void, _token: i32, text: *const c_char, n_bytes: usize) -> i32 {
    let call = unsafe { &mut *user.cast::<Call>() };
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), n_bytes) };
    let text = String::from_utf8_lossy(bytes);
    match catch_unwind(AssertUnwindSafe(|| (call.on_text)(&text))) {
        Ok(flow) => flow.is_break() as i32,
        Err(panic) => {
            call.panicked = Some(panic);
            1
        }
    }
}
