/* POSIX shell quoting (XCU 2.2), as Compose splits `command: "a 'b c'"`. No expansion: `$`, `*` and `|` are ordinary.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "provisioner/config.h"

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* `*at` stands on the opening quote; afterwards behind the closing one. */
static int take_quoted(const char **at, struct buffer *word, struct error *err)
{
	char quote = *(*at)++;
	for (; **at != quote; ++*at) {
		if (quote == '"' && **at == '\\' && (*at)[1] && strchr("$`\"\\\n", (*at)[1])) {
			++*at;
			if (**at == '\n')
				continue;
		}
		if (!**at)
			return error_set(err, ERROR_CONFIG_INVALID, "the closing %s is missing",
			                 quote == '"' ? "double quote" : "single quote");
		buffer_addc(word, **at);
	}
	++*at;
	return 0;
}

static int take_word(const char **at, struct buffer *word, struct error *err)
{
	while (**at && !is_blank(**at)) {
		if (**at == '"' || **at == '\'') {
			int r = take_quoted(at, word, err);
			if (r < 0)
				return r;
			continue;
		}
		if (**at == '\\') {
			++*at;
			if (!**at)
				return error_set(err, ERROR_CONFIG_INVALID, "a backslash at the end quotes nothing");
			if (**at == '\n') {
				++*at;
				continue;
			}
		}
		buffer_addc(word, *(*at)++);
	}
	return 0;
}

int config_split_words(const char *text, char ***ret, struct error *err)
{
	cleanup_strv char **words = xcalloc(1, sizeof *words);
	size_t n = 0;
	for (;;) {
		while (is_blank(*text) || (text[0] == '\\' && text[1] == '\n'))
			text += *text == '\\' ? 2 : 1;
		if (!*text)
			break;
		cleanup_buffer struct buffer word = BUFFER_INIT;
		int r = take_word(&text, &word, err);
		if (r < 0)
			return r;
		if (n == CONFIG_WORDS_MAX)
			return error_set(err, ERROR_CONFIG_INVALID, "more than %u words", CONFIG_WORDS_MAX);
		words = xrealloc(words, (n + 2) * sizeof *words);
		words[n++] = buffer_detach(&word);
		words[n] = NULL;
	}
	*ret = move_ptr(words);
	return 0;
}

char *config_join_words(char *const *words)
{
	struct buffer out = BUFFER_INIT;
	for (char *const *word = words; word && *word; word++) {
		if (word != words)
			buffer_addc(&out, ' ');
		buffer_addc(&out, '\'');
		for (const char *c = *word; *c; c++) {
			if (*c == '\'')
				buffer_adds(&out, "'\\'");
			buffer_addc(&out, *c);
		}
		buffer_addc(&out, '\'');
	}
	return buffer_detach(&out);
}
