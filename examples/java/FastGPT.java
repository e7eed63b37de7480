import com.sun.jna.Callback;
import com.sun.jna.Library;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.jna.Structure;
import com.sun.jna.ptr.IntByReference;
import com.sun.jna.ptr.LongByReference;
import com.sun.jna.ptr.PointerByReference;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.function.Predicate;

/** A Java face of fastgpt.h through JNA: one model with its own context and cache, for one thread at a time. */
final class FastGPT implements AutoCloseable {
    /** The functions as C declares them; size_t is a long, as on every 64-bit system. */
    interface C extends Library {
        interface Piece extends Callback {
            int call(Pointer user, int token, Pointer text, long nBytes);
        }

        @Structure.FieldOrder("text")
        class Why extends Structure {
            public byte[] text = new byte[512];
        }

        @Structure.FieldOrder({"structSize", "temperature", "topK", "topP", "minP", "repetitionPenalty", "seed"})
        class Params extends Structure {
            public long structSize;
            public float temperature;
            public int topK;
            public float topP, minP, repetitionPenalty;
            public long seed;
        }

        String fastgpt_status_text(int status);
        int fastgpt_model_load(String path, Pointer options, PointerByReference out, Why error);
        void fastgpt_model_free(Pointer model);
        int fastgpt_model_n_vocab(Pointer model);
        int fastgpt_tokenizer_create(Pointer model, PointerByReference out, Why error);
        void fastgpt_tokenizer_free(Pointer tokenizer);
        int fastgpt_encode(Pointer tokenizer, byte[] text, long nBytes, int flags, int[] tokens, int capacity,
                           IntByReference nTokens);
        int fastgpt_detokenize(Pointer tokenizer, int[] tokens, int nTokens, byte[] bytes, long capacity,
                               LongByReference nBytes);
        int fastgpt_context_create(Pointer model, Pointer pool, int nBatch, PointerByReference out);
        void fastgpt_context_free(Pointer context);
        int fastgpt_kv_cache_create(Pointer model, int nCtx, PointerByReference out);
        void fastgpt_kv_cache_free(Pointer kv);
        int fastgpt_kv_cache_truncate(Pointer kv, int nPast);
        int fastgpt_sampler_create(int nVocab, Params params, PointerByReference out);
        void fastgpt_sampler_free(Pointer sampler);
        int fastgpt_sampler_probabilities(Pointer sampler, float[] logits, float[] probabilities);
        int fastgpt_prefill(Pointer context, Pointer kv, int[] tokens, int nTokens, float[] logits);
        int fastgpt_generate(Pointer context, Pointer kv, Pointer sampler, Pointer tokenizer, int[] prompt,
                             int nPrompt, int maxNewTokens, Piece callback, Pointer user, IntByReference nGenerated);
    }

    private static final int OK = 0, ERR_CAPACITY = 14, ENCODE_LITERAL = 1;
    private final C c;
    private Pointer model, tokenizer, context, kv, asIs, greedy;
    private int nVocab;

    FastGPT(String library, String file) {
        c = Native.load(library, C.class);
        try {
            open(file);
        } catch (RuntimeException error) {
            close();
            throw error;
        }
    }

    private void open(String file) {
        C.Why why = new C.Why();
        PointerByReference out = new PointerByReference();
        explain(c.fastgpt_model_load(file, null, out, why), why);
        model = out.getValue();
        nVocab = c.fastgpt_model_n_vocab(model);
        explain(c.fastgpt_tokenizer_create(model, out, why), why);
        tokenizer = out.getValue();
        check(c.fastgpt_context_create(model, null, 0, out));
        context = out.getValue();
        check(c.fastgpt_kv_cache_create(model, 0, out));
        kv = out.getValue();
        asIs = newSampler(1);
        greedy = newSampler(0);
    }

    private void check(int status) {
        if (status != OK) throw new IllegalStateException(c.fastgpt_status_text(status));
    }

    /** For functions that tell more about an error than its status. */
    private static void explain(int status, C.Why why) {
        if (status != OK) throw new IllegalArgumentException(Native.toString(why.text, "UTF-8"));
    }

    /** Tokens of a text; that of a control token such as &lt;|endoftext|> is text like any other. */
    int[] encode(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        int[] tokens = new int[bytes.length];
        IntByReference n = new IntByReference();
        check(c.fastgpt_encode(tokenizer, bytes, bytes.length, ENCODE_LITERAL, tokens, tokens.length, n));
        return Arrays.copyOf(tokens, n.getValue());
    }

    String decode(int... tokens) {
        LongByReference n = new LongByReference();
        int status = c.fastgpt_detokenize(tokenizer, tokens, tokens.length, null, 0, n);
        if (status != ERR_CAPACITY) check(status);
        byte[] bytes = new byte[(int) n.getValue()];
        if (bytes.length > 0) check(c.fastgpt_detokenize(tokenizer, tokens, tokens.length, bytes, bytes.length, n));
        return new String(bytes, StandardCharsets.UTF_8);
    }

    /** Probabilities [nVocab] of what follows the tokens. */
    float[] next(int[] tokens) {
        float[] logits = new float[nVocab], probabilities = new float[nVocab];
        check(c.fastgpt_kv_cache_truncate(kv, 0));
        check(c.fastgpt_prefill(context, kv, tokens, tokens.length, logits));
        check(c.fastgpt_sampler_probabilities(asIs, logits, probabilities));
        return probabilities;
    }

    /** Continues the tokens greedily; onText receives text as it comes, and false ends it. */
    int generate(int[] tokens, int maxNewTokens, Predicate<String> onText) {
        C.Piece piece = (user, token, text, nBytes) -> {
            byte[] bytes = text.getByteArray(0, (int) nBytes);
            return onText.test(new String(bytes, StandardCharsets.UTF_8)) ? 0 : 1;
        };
        IntByReference n = new IntByReference();
        check(c.fastgpt_kv_cache_truncate(kv, 0));
        check(c.fastgpt_generate(context, kv, greedy, tokenizer, tokens, tokens.length, maxNewTokens, piece, null, n));
        return n.getValue();
    }

    /** Temperature 0 always takes the likeliest token, 1 leaves the model's distribution as it is. */
    private Pointer newSampler(float temperature) {
        C.Params params = new C.Params();
        params.structSize = params.size();
        params.temperature = temperature;
        PointerByReference out = new PointerByReference();
        check(c.fastgpt_sampler_create(nVocab, params, out));
        return out.getValue();
    }

    @Override
    public void close() {
        c.fastgpt_sampler_free(greedy);
        c.fastgpt_sampler_free(asIs);
        c.fastgpt_kv_cache_free(kv);
        c.fastgpt_context_free(context);
        c.fastgpt_tokenizer_free(tokenizer);
        c.fastgpt_model_free(model);
    }
}
