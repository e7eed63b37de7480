import java.util.stream.IntStream;

/** What may follow a prompt, and a story that goes on from there.  README.md has the commands. */
final class Story {
    public static void main(String[] arguments) {
        if (arguments.length != 3) {
            System.err.println("usage: java Story LIBFASTGPT MODEL.gguf PROMPT");
            System.exit(2);
        }
        String library = arguments[0], prompt = arguments[2];
        try {
            new FastGPT(library, "missing.gguf");
        } catch (IllegalArgumentException error) {
            System.out.println("no story: " + error.getMessage());
        }
        try (FastGPT model = new FastGPT(library, arguments[1])) {
            int[] tokens = model.encode(prompt);
            float[] p = model.next(tokens);
            IntStream.range(0, p.length).boxed().sorted((a, b) -> Float.compare(p[b], p[a])).limit(5)
                .forEach(token -> System.out.printf("%5.1f%%  %s%n", 100 * p[token], model.decode(token)));

            System.out.print(prompt);
            model.generate(tokens, 40, text -> {
                System.out.print(text);
                return true; // go on
            });
            System.out.println();
        }
    }
}
