// story.js - what may follow a prompt, and a story that goes on from there.  README.md has the command.
import { open } from "./fastgpt.js";

const [library, file, prompt] = process.argv.slice(2);
if (prompt === undefined) {
    console.error("usage: node story.js LIBFASTGPT MODEL.gguf PROMPT");
    process.exit(2);
}
const load = open(library);

try {
    load("missing.gguf");
} catch (error) {
    console.log(`no story: ${error.message}`);
}

const model = load(file);
const tokens = model.encode(prompt);
const probabilities = model.next(tokens);
const ranked = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
for (const token of ranked.slice(0, 5))
    console.log(`${(100 * probabilities[token]).toFixed(1).padStart(5)}%  ${model.decode([token])}`);

process.stdout.write(prompt);
model.generate(tokens, 40, (text) => process.stdout.write(text));
console.log();
