// Package fastgpt is a Go face of fastgpt.h: errors instead of statuses, slices instead of pointers.
//
// Close every handle, a model last.  A Model and a Tokenizer may be shared by goroutines; a Context, a KVCache and a
// Sampler belong to one at a time.
package fastgpt

/*
#include <fastgpt.h>
#include <stdlib.h>

extern int32_t fastgptGoPiece(void *user, int32_t token, char *text, size_t n_bytes);

static fastgpt_status generate(fastgpt_context *ctx, fastgpt_kv_cache *kv, fastgpt_sampler *sampler,
                               const fastgpt_tokenizer *tokenizer, const int32_t *prompt, int32_t n_prompt,
                               int32_t max_new_tokens, void *user, int32_t *n_generated) {
    return fastgpt_generate(ctx, kv, sampler, tokenizer, prompt, n_prompt, max_new_tokens,
                            (fastgpt_piece_callback)fastgptGoPiece, user, n_generated);
}
*/
import "C"

import (
	"errors"
	"runtime/cgo"
	"unsafe"
)

type (
	Model     struct{ c *C.fastgpt_model }
	Pool      struct{ c *C.fastgpt_pool }
	Tokenizer struct{ c *C.fastgpt_tokenizer }
	KVCache   struct{ c *C.fastgpt_kv_cache }
	Context   struct {
		c      *C.fastgpt_context
		nVocab int
	}
	Sampler struct {
		c      *C.fastgpt_sampler
		nVocab int
	}
)

func check(status C.fastgpt_status, detail *C.fastgpt_error) error {
	if status == C.FASTGPT_OK {
		return nil
	}
	if detail != nil {
		return errors.New(C.GoString(&detail.text[0]))
	}
	return errors.New(C.GoString(C.fastgpt_status_text(status)))
}

// first is the address of a slice's elements, nil for an empty slice.
func first[T any](s []T) *T {
	if len(s) == 0 {
		return nil
	}
	return &s[0]
}

// Load maps a GGUF file.
func Load(path string) (*Model, error) {
	cPath := C.CString(path)
	defer C.free(unsafe.Pointer(cPath))
	var m Model
	var why C.fastgpt_error
	return &m, check(C.fastgpt_model_load(cPath, nil, &m.c, &why), &why)
}

func (m *Model) NVocab() int { return int(C.fastgpt_model_n_vocab(m.c)) }
func (m *Model) Close()      { C.fastgpt_model_free(m.c) }

// NewPool makes threads for contexts; 0 is one for each core.
func NewPool(nThreads int) (*Pool, error) {
	var p Pool
	return &p, check(C.fastgpt_pool_create(C.int32_t(nThreads), &p.c), nil)
}

func (p *Pool) Close() { C.fastgpt_pool_free(p.c) }

// NewTokenizer makes the tokenizer of a model file.
func NewTokenizer(m *Model) (*Tokenizer, error) {
	var t Tokenizer
	var why C.fastgpt_error
	return &t, check(C.fastgpt_tokenizer_create(m.c, &t.c, &why), &why)
}

func (t *Tokenizer) Close() { C.fastgpt_tokenizer_free(t.c) }

// Encode takes the text of a control token such as <|endoftext|> as text like any other.
func (t *Tokenizer) Encode(text string) ([]int32, error) {
	bytes, tokens := []byte(text), make([]int32, len(text))
	var n C.int32_t
	status := C.fastgpt_encode(t.c, (*C.char)(unsafe.Pointer(first(bytes))), C.size_t(len(bytes)),
		C.FASTGPT_ENCODE_LITERAL, (*C.int32_t)(first(tokens)), C.int32_t(len(tokens)), &n)
	return tokens[:n], check(status, nil)
}

// Decode gives bytes, which need not be whole characters.
func (t *Tokenizer) Decode(tokens []int32) (string, error) {
	var n C.size_t
	from, count := (*C.int32_t)(first(tokens)), C.int32_t(len(tokens))
	status := C.fastgpt_detokenize(t.c, from, count, nil, 0, &n)
	if status != C.FASTGPT_ERR_CAPACITY {
		return "", check(status, nil)
	}
	bytes := make([]byte, n)
	status = C.fastgpt_detokenize(t.c, from, count, (*C.char)(unsafe.Pointer(first(bytes))), n, &n)
	return string(bytes), check(status, nil)
}

// NewKVCache has as many positions as the model was trained for.
func NewKVCache(m *Model) (*KVCache, error) {
	var kv KVCache
	return &kv, check(C.fastgpt_kv_cache_create(m.c, 0, &kv.c), nil)
}

func (kv *KVCache) Close() { C.fastgpt_kv_cache_free(kv.c) }

// Truncate forgets positions from nPast on.
func (kv *KVCache) Truncate(nPast int) error {
	return check(C.fastgpt_kv_cache_truncate(kv.c, C.int32_t(nPast)), nil)
}

// NewContext allocates all that a step needs.
func NewContext(m *Model, p *Pool) (*Context, error) {
	ctx := Context{nVocab: m.NVocab()}
	return &ctx, check(C.fastgpt_context_create(m.c, p.c, 0, &ctx.c), nil)
}

func (ctx *Context) Close() { C.fastgpt_context_free(ctx.c) }

// Prefill appends tokens to kv and gives the logits after the last one.
func (ctx *Context) Prefill(kv *KVCache, tokens []int32) ([]float32, error) {
	logits := make([]float32, ctx.nVocab)
	status := C.fastgpt_prefill(ctx.c, kv.c, (*C.int32_t)(first(tokens)), C.int32_t(len(tokens)),
		(*C.float)(first(logits)))
	return logits, check(status, nil)
}

// NewSampler: temperature 0 always takes the likeliest token, 1 leaves the model's distribution as it is.
func NewSampler(m *Model, temperature float32) (*Sampler, error) {
	s := Sampler{nVocab: m.NVocab()}
	params := C.fastgpt_sampler_params{temperature: C.float(temperature)}
	params.struct_size = C.size_t(unsafe.Sizeof(params))
	return &s, check(C.fastgpt_sampler_create(C.int32_t(s.nVocab), &params, &s.c), nil)
}

func (s *Sampler) Close() { C.fastgpt_sampler_free(s.c) }

// Probabilities is the distribution that the next token would be drawn from.
func (s *Sampler) Probabilities(logits []float32) ([]float32, error) {
	if len(logits) != s.nVocab {
		return nil, errors.New("logits of another model")
	}
	p := make([]float32, s.nVocab)
	return p, check(C.fastgpt_sampler_probabilities(s.c, (*C.float)(first(logits)), (*C.float)(first(p))), nil)
}

// Generate appends the prompt and new tokens to kv, and hands over text as it comes; false ends it.
func (ctx *Context) Generate(kv *KVCache, s *Sampler, t *Tokenizer, prompt []int32, maxNewTokens int,
	onText func(string) bool) (int, error) {
	handle := cgo.NewHandle(onText)
	defer handle.Delete()
	var n C.int32_t
	status := C.generate(ctx.c, kv.c, s.c, t.c, (*C.int32_t)(first(prompt)), C.int32_t(len(prompt)),
		C.int32_t(maxNewTokens), unsafe.Pointer(&handle), &n)
	return int(n), check(status, nil)
}

//export fastgptGoPiece
func fastgptGoPiece(user unsafe.Pointer, token C.int32_t, text *C.char, nBytes C.size_t) C.int32_t {
	onText := (*(*cgo.Handle)(user)).Value().(func(string) bool)
	if onText(C.GoStringN(text, C.int(nBytes))) {
		return 0
	}
	return 1
}
