-- story.lua - what may follow a prompt, and a story that goes on from there.  README.md has the command.
-- LuaJIT reads C declarations itself: the public header, between its two marks, is the whole binding.
local ffi = require("ffi")

local library, file, prompt = unpack(arg)
if not prompt then error("usage: luajit story.lua LIBFASTGPT MODEL.gguf PROMPT", 0) end
local header = assert(io.open(library:match("^(.*)/lib/") .. "/include/fastgpt.h")):read("*a")
ffi.cdef(header:match("/%* cdef:begin %*/(.*)/%* cdef:end %*/"))
local C = ffi.load(library)

local function check(status, detail)
    if status ~= C.FASTGPT_OK then error(ffi.string(detail and detail.text or C.fastgpt_status_text(status)), 0) end
end

-- Calls create(out) and returns the handle.  Not for ffi.gc: a model must be freed last, and a collector has no order.
local function new(name, create)
    local out = ffi.new("fastgpt_" .. name .. " *[1]")
    check(create(out))
    return out[0]
end

local function load(path)
    local out, why = ffi.new("fastgpt_model *[1]"), ffi.new("fastgpt_error")
    check(C.fastgpt_model_load(path, nil, out, why), why)
    return out[0]
end

-- Temperature 0 always takes the likeliest token, 1 leaves the model's distribution as it is.
local function new_sampler(n_vocab, temperature)
    local params = ffi.new("fastgpt_sampler_params", { temperature = temperature })
    params.struct_size = ffi.sizeof(params)
    return new("sampler", function(out) return C.fastgpt_sampler_create(n_vocab, params, out) end)
end

local function print_likeliest(model, n_vocab, probabilities)
    local n_bytes = ffi.new("size_t[1]")
    for _ = 1, 5 do
        local best = 0
        for token = 1, n_vocab - 1 do
            if probabilities[token] > probabilities[best] then best = token end
        end
        local bytes = C.fastgpt_model_token_bytes(model, best, n_bytes)
        print(("%5.1f%%  %s"):format(100 * probabilities[best], ffi.string(bytes, n_bytes[0])))
        probabilities[best] = 0
    end
end

local ok, message = pcall(load, "missing.gguf")
if not ok then print("no story: " .. message) end

local model = load(file)
local n_vocab = C.fastgpt_model_n_vocab(model)
local tokenizer = new("tokenizer", function(out) return C.fastgpt_tokenizer_create(model, out, nil) end)
local ctx = new("context", function(out) return C.fastgpt_context_create(model, nil, 0, out) end)
local kv = new("kv_cache", function(out) return C.fastgpt_kv_cache_create(model, 0, out) end)
local as_is, greedy = new_sampler(n_vocab, 1), new_sampler(n_vocab, 0)

local tokens, n = ffi.new("int32_t[?]", #prompt), ffi.new("int32_t[1]")
check(C.fastgpt_encode(tokenizer, prompt, #prompt, C.FASTGPT_ENCODE_LITERAL, tokens, #prompt, n))
local logits, probabilities = ffi.new("float[?]", n_vocab), ffi.new("float[?]", n_vocab)
check(C.fastgpt_prefill(ctx, kv, tokens, n[0], logits))
check(C.fastgpt_sampler_probabilities(as_is, logits, probabilities))
print_likeliest(model, n_vocab, probabilities)

check(C.fastgpt_kv_cache_truncate(kv, 0))
io.write(prompt)
jit.off() -- compiled Lua must not call C that calls Lua back
local piece = ffi.cast("fastgpt_piece_callback", function(_, _, text, n_bytes)
    io.write(ffi.string(text, n_bytes))
    io.flush()
    return 0 -- go on
end)
check(C.fastgpt_generate(ctx, kv, greedy, tokenizer, tokens, n[0], 40, piece, nil, nil))
print()

piece:free()
C.fastgpt_sampler_free(greedy)
C.fastgpt_sampler_free(as_is)
C.fastgpt_kv_cache_free(kv)
C.fastgpt_context_free(ctx)
C.fastgpt_tokenizer_free(tokenizer)
C.fastgpt_model_free(model)
