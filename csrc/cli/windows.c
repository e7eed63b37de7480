/* windows.c - the beginning of the command on Windows: arguments and output in UTF-8, no \r before \n. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv);
int wmain(int argc, wchar_t **wide);

static char *utf8(const wchar_t *wide) {
    int n = WideCharToMultiByte(CP_UTF8, 0, wide, -1, NULL, 0, NULL, NULL);
    char *text = n > 0 ? malloc((size_t)n) : NULL;
    if (text) WideCharToMultiByte(CP_UTF8, 0, wide, -1, text, n, NULL, NULL);
    return text;
}

/* The console's code page is the user's: it gets it back. */
static UINT code_page;
static void give_code_page_back(void) { SetConsoleOutputCP(code_page); }

static void write_utf8(void) {
    _setmode(_fileno(stdout), _O_BINARY);
    code_page = GetConsoleOutputCP();
    if (code_page == 0 || code_page == CP_UTF8) return;
    atexit(give_code_page_back);
    SetConsoleOutputCP(CP_UTF8);
}

int wmain(int argc, wchar_t **wide) {
    char **argv = calloc((size_t)argc + 1, sizeof *argv);
    for (int i = 0; argv && i < argc; i++)
        if (!(argv[i] = utf8(wide[i]))) return 1;
    if (!argv) return 1;
    write_utf8();
    return main(argc, argv); /* the arguments live as long as the process */
}
