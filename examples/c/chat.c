/* chat.c - a conversation, by one handle that remembers what was said.  README.md has the build line.
 *
 *     ./chat "$(fastgpt-c config --demo-model)"      a line is your turn; Ctrl-D ends it
 *
 * GPT-2 knows no roles: the conversation is one text, and an answer ends where the model begins to write your turn. */
#include <fastgpt.h>
#include <stdio.h>
#include <string.h>

enum { MAX_LINE = 4000 };

static int32_t print_piece(void *user, const fastgpt_piece *piece) {
    (void)user;
    fwrite(piece->text, 1, piece->n_bytes, stdout);
    fflush(stdout);
    return 0; /* go on */
}

/* Says a line, prints the answer; false when that fails. */
static int take_turn(fastgpt_generator *generator, const char *line) {
    char turn[MAX_LINE + 32];
    int32_t n_said;
    fastgpt_error error;
    fastgpt_generator_tokens(generator, &n_said);
    snprintf(turn, sizeof turn, "%sUser: %s\nAssistant:", n_said > 0 ? "\n" : "", line);
    fastgpt_status status = fastgpt_generator_continue(generator, turn, strlen(turn), print_piece, NULL, &error);
    printf("\n");
    if (status) fprintf(stderr, "chat: %s\n", error.text);
    return status == FASTGPT_OK;
}

int main(int argc, char **argv) {
    static const char *const stop[] = {"\nUser:"};
    fastgpt_generator_options options = {.struct_size = sizeof options,
                                         .max_new_tokens = 60,
                                         .overflow = FASTGPT_OVERFLOW_TRUNCATE, /* the oldest turns are forgotten */
                                         .encode_flags = FASTGPT_ENCODE_LITERAL,
                                         .n_stop = 1,
                                         .stop = stop};
    fastgpt_generator *generator;
    fastgpt_error error;
    char line[MAX_LINE];
    if (argc != 2) {
        fprintf(stderr, "usage: chat MODEL.gguf\n");
        return 2;
    }
    if (fastgpt_generator_open(argv[1], &options, &generator, &error)) {
        fprintf(stderr, "chat: %s\n", error.text);
        return 1;
    }
    int fine = 1;
    while (fine && printf("> ") > 0 && !fflush(stdout) && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        fine = take_turn(generator, line);
    }
    printf("\n");
    fastgpt_generator_free(generator);
    return !fine;
}
