/* malloc_info writes one well-formed XML document with the root `malloc` to the stream it is given, refuses options,
 * and does not hang when the stream itself allocates. */
#include "check.h"
#include <ctype.h>

static int is_name(int c)
{
    return isalnum(c) || c == '_' || c == '-' || c == '.' || c == ':';
}

/* A reader of elements, attributes, comments and text that stops at the first thing XML does not allow.
 * Returns the number of elements. */
static int read_document(const char *text)
{
    char open[32][64];
    int depth = 0, elements = 0, roots = 0;
    const char *at = text;
    while (*at) {
        if (*at != '<') {
            CHECK(depth > 0 || isspace((unsigned char)*at), "text outside the root: %.40s", at);
            CHECK(*at != '>', "a lone '>': %.40s", at);
            if (*at == '&') {
                const char *end = strchr(at, ';');
                CHECK(end && end - at < 10, "a lone '&': %.40s", at);
            }
            at++;
            continue;
        }
        if (strncmp(at, "<?", 2) == 0) {
            CHECK(at == text, "a declaration in the middle: %.40s", at);
            at = strstr(at, "?>");
            CHECK(at != NULL, "a declaration without end");
            at += 2;
            continue;
        }
        if (strncmp(at, "<!--", 4) == 0) {
            at = strstr(at, "-->");
            CHECK(at != NULL, "a comment without end");
            at += 3;
            continue;
        }
        int closing = at[1] == '/';
        const char *name = at + 1 + closing, *end = name;
        while (is_name((unsigned char)*end))
            end++;
        CHECK(end > name && end - name < 64, "no name in %.40s", at);
        at = end;
        if (closing) {
            CHECK(*at == '>', "an end tag is a name: %.40s", name);
            CHECK(depth > 0, "nothing to close: %.40s", name);
            depth--;
            CHECK(strncmp(open[depth], name, end - name) == 0 && open[depth][end - name] == 0,
                  "<%s> is closed by </%.*s>", open[depth], (int)(end - name), name);
            at++;
            continue;
        }
        elements++;
        if (depth == 0) {
            roots++;
            CHECK(roots == 1, "a second root: %.40s", name);
            CHECK(end - name == 6 && strncmp(name, "malloc", 6) == 0, "the root is %.*s", (int)(end - name), name);
        }
        for (;;) {
            const char *space = at;
            while (isspace((unsigned char)*at))
                at++;
            if (*at == '>' || *at == '/')
                break;
            CHECK(at > space, "no space before an attribute: %.40s", at);
            const char *attribute = at;
            while (is_name((unsigned char)*at))
                at++;
            CHECK(at > attribute && *at == '=', "not an attribute: %.40s", attribute);
            char quote = at[1];
            CHECK(quote == '"' || quote == '\'', "a value without quotes: %.40s", attribute);
            for (at += 2; *at != quote; at++)
                CHECK(*at && *at != '<', "a value without end: %.40s", attribute);
            at++;
        }
        if (*at == '/') {
            CHECK(at[1] == '>', "an empty element: %.40s", name);
            at += 2;
            continue;
        }
        CHECK(depth < 32, "elements 32 deep");
        memcpy(open[depth], name, end - name);
        open[depth][end - name] = 0;
        depth++;
        at++;
    }
    CHECK(depth == 0, "<%s> is never closed", open[depth - 1]);
    CHECK(roots == 1, "no root");
    return elements;
}

static void to_a_file(void)
{
    static char text[1 << 20];
    FILE *file = tmpfile();
    CHECK(file != NULL, "a temporary file");
    fputs("before\n", file);
    CHECK(malloc_info(0, file) == 0, "malloc_info fails");
    fputs("after\n", file);
    rewind(file);
    size_t length = fread(text, 1, sizeof text - 1, file);
    text[length] = 0;
    fclose(file);
    /* It went through the stream: what was written before and after is where it belongs. */
    CHECK(strncmp(text, "before\n", 7) == 0, "written around the stream: %.40s", text);
    CHECK(length > 13 && strcmp(text + length - 6, "after\n") == 0, "written around the stream");
    text[length - 6] = 0;
    int elements = read_document(text + 7);
    CHECK(elements >= 2, "a document of %d elements says nothing", elements);
    CHECK(strpbrk(text + 7, "123456789") != NULL, "a document without figures");
}

/* A stream in memory grows its buffer while malloc_info writes. */
static void to_memory(void)
{
    for (int round = 0; round < 20; round++) {
        char *text = NULL;
        size_t length = 0;
        FILE *stream = open_memstream(&text, &length);
        CHECK(stream != NULL, "a stream in memory");
        CHECK(malloc_info(0, stream) == 0, "malloc_info fails");
        fclose(stream);
        read_document(text);
        free(text);
    }
}

static volatile int stop;

static void *churn(void *argument)
{
    uint64_t random = (uintptr_t)argument;
    while (!stop)
        free(malloc(program_size(&random)));
    return NULL;
}

int main(void)
{
    to_a_file();
    to_memory();
    CHECK(malloc_info(1, stdout) != 0, "options are refused");
    pthread_t one = start(churn, (void *)1), two = start(churn, (void *)2);
    to_memory();
    stop = 1;
    finish(one);
    finish(two);
    to_a_file();
    puts("malloc_info: well-formed XML on the stream it was given");
    return 0;
}
