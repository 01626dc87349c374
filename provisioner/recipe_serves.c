/* Whether a service of a recipe's image is the recipe's server, or a client of another one (psql, redis-cli): by what its command says
 * in the places where a program's name stands. */
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "provisioner/recipe.h"

enum says { SAYS_OTHER, SAYS_SCRIPT, SAYS_SERVER };

/* Programs and words of a shell behind which a program's name stands, how many words of their own stand between, and whether they read a
 * shell's text. */
static const struct {
	const char *name;
	unsigned own;
	bool shell;
} wrappers[] = {
    {"exec", 0},    {"env", 0},     {"nohup", 0},   {"nice", 0},       {"time", 0},    {"command", 0},  {"tini", 0},       {"dumb-init", 0},
    {"setpriv", 0}, {"gosu", 1},    {"sudo", 0},    {"su-exec", 1},    {"chroot", 1},  {"timeout", 1},  {"su", 1, true},   {"runuser", 1, true},
    {"sh", 0, true}, {"bash", 0, true}, {"ash", 0, true}, {"dash", 0, true}, {"then", 0}, {"do", 0},     {"else", 0},       {"if", 0},
    {"while", 0},   {"until", 0},   {"!", 0},
};

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static bool ends_with(const char *word, const char *end)
{
	size_t len = strlen(word), n = strlen(end);
	return len >= n && !strcmp(word + len - n, end);
}

struct scan {
	const struct recipe *recipe;
	bool at_program; /* the next word is one's name */
	unsigned skip;   /* words of a wrapper's own before it */
	bool shell;      /* a shell reads the words */
	bool at_image;   /* the next word goes to the image's own entrypoint, which adds its server to options and files of them */
	enum says says;
};

/* A name in the place of a program's. True: another one may follow */
static bool take_program(struct scan *s, const char *word)
{
	const char *name = base_name(word);
	bool image = !strcmp(name, "docker-entrypoint.sh"), strange = ends_with(name, ".sh") || *name == '$' || (name != word && !strstr(word, "bin/"));
	s->at_image = image;
	if (strv_contains(s->recipe->programs, name)) {
		s->says = SAYS_SERVER;
		return false;
	}
	for (size_t i = 0; i < sizeof wrappers / sizeof *wrappers; i++)
		if (!strcmp(name, wrappers[i].name)) {
			s->skip = wrappers[i].own;
			s->shell |= wrappers[i].shell;
			return true;
		}
	if (strange && !image && s->says != SAYS_SERVER)
		s->says = SAYS_SCRIPT;
	return image || ends_with(name, ".sh") || !name[strspn(name, "0123456789")]; /* nice -n 10 */
}

static void take_word(struct scan *s, const char *word)
{
	bool option = *word == '-';
	if (s->at_image && (option || ends_with(word, ".conf")))
		s->says = SAYS_SERVER;
	s->at_image = false;
	if (!strcmp(word, "--"))
		s->at_program = true;
	else if (!s->at_program || option || strchr(word, '='))
		return;
	else if (s->skip)
		s->skip--;
	else
		s->at_program = take_program(s, word);
}

/* Words that a shell would see, as far as that matters: after what ends a command another one begins, but for quoted text (SQL). */
static void take_text(struct scan *s, const char *text)
{
	char quote = '\0';
	while (*text) {
		size_t len = strcspn(text, " \t\n\\'\";&|(){}`");
		cleanup_free char *word = xstrndup(text, len);
		if (len)
			take_word(s, word);
		text += len;
		if (*text && s->shell && !quote && strchr("\n;&|(){}`", *text)) {
			s->at_program = true;
			s->skip = 0;
		}
		if ((*text == '\'' || *text == '"') && (!quote || quote == *text))
			quote = quote ? '\0' : *text;
		text += *text != '\0';
	}
}

static enum says look(const struct recipe *r, const struct config_service *c)
{
	bool own = c->entrypoint && c->entrypoint[0];
	struct scan s = {.recipe = r, .at_program = true, .at_image = !own};
	for (char *const *word = c->entrypoint; word && *word; word++)
		take_text(&s, *word);
	for (char *const *word = c->command; word && *word; word++)
		take_text(&s, *word);
	return s.at_image ? SAYS_SERVER : s.says;
}

bool recipe_has_its_port(const struct recipe *r, const struct config_service *c)
{
	for (size_t i = 0; i < c->n_ports; i++)
		if (c->ports[i].internal == r->port)
			return true;
	for (size_t i = 0; i < c->n_expose; i++)
		if (c->expose[i].internal == r->port)
			return true;
	return c->ready.port && c->ready.port == r->port;
}

static bool is_in(const char *target, const char *directory)
{
	size_t len = directory ? strlen(directory) : 0;
	return len && !strncmp(target, directory, len) && (!target[len] || target[len] == '/');
}

/* A script may start anything: it is the server where the service has what only a server needs. */
static bool is_kept_as_server(const struct recipe *r, const struct config_service *c)
{
	if (c->healthcheck.kind != PROBE_NONE || c->ready.kind != PROBE_NONE)
		return true;
	for (size_t i = 0; i < c->n_volumes; i++)
		if (is_in(c->volumes[i].target, r->data_target) || is_in(c->volumes[i].target, r->seed_target))
			return true;
	return false;
}

bool recipe_serves(const struct recipe *r, const struct config_service *c)
{
	if (!r->programs || !r->programs[0] || recipe_has_its_port(r, c))
		return true;
	enum says says = look(r, c);
	return says == SAYS_SERVER || (says == SAYS_SCRIPT && is_kept_as_server(r, c));
}

const struct recipe *recipe_for_service(const struct recipes *rs, const struct config_service *c)
{
	const struct recipe *r = c->image ? recipe_for_image(rs, c->image) : NULL;
	return r && recipe_serves(r, c) ? r : NULL;
}
