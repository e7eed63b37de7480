// What may follow a prompt, and a story that goes on from there.  README.md has the build line.
package main

import (
	"fmt"
	"os"
	"sort"

	"story/fastgpt"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "story:", err)
		os.Exit(1)
	}
	return value
}

func printLikeliest(tokenizer *fastgpt.Tokenizer, probabilities []float32) {
	ranked := make([]int32, len(probabilities))
	for i := range ranked {
		ranked[i] = int32(i)
	}
	sort.Slice(ranked, func(a, b int) bool { return probabilities[ranked[a]] > probabilities[ranked[b]] })
	for _, token := range ranked[:5] {
		fmt.Printf("%5.1f%%  %s\n", 100*probabilities[token], must(tokenizer.Decode([]int32{token})))
	}
}

func tell(model *fastgpt.Model, prompt string) {
	tokenizer := must(fastgpt.NewTokenizer(model))
	defer tokenizer.Close()
	pool := must(fastgpt.NewPool(0))
	defer pool.Close()
	ctx := must(fastgpt.NewContext(model, pool))
	defer ctx.Close()
	kv := must(fastgpt.NewKVCache(model))
	defer kv.Close()
	asIs := must(fastgpt.NewSampler(model, 1))
	defer asIs.Close()
	greedy := must(fastgpt.NewSampler(model, 0))
	defer greedy.Close()

	tokens := must(tokenizer.Encode(prompt))
	logits := must(ctx.Prefill(kv, tokens))
	printLikeliest(tokenizer, must(asIs.Probabilities(logits)))

	must(0, kv.Truncate(0))
	fmt.Print(prompt)
	must(ctx.Generate(kv, greedy, tokenizer, tokens, 40, func(text string) bool {
		_, err := fmt.Print(text)
		return err == nil
	}))
	fmt.Println()
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: story MODEL.gguf PROMPT")
		os.Exit(2)
	}
	if _, err := fastgpt.Load("missing.gguf"); err != nil {
		fmt.Println("no story:", err)
	}
	model := must(fastgpt.Load(os.Args[1]))
	defer model.Close()
	tell(model, os.Args[2])
}
