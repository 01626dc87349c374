/* Which variables are secret by their name, and URLs without their passwords. */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/envfile.h"

#define MASK "***"
#define MASK_ANYWHERE_LEN 6 /* secrets of this length are masked within words too */

/* One too many costs a masked word in a status; one too few, a password in a log. */
bool env_name_is_secret(const char *name)
{
	static const char *const words[] = {"PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "_PWD", "PRIVATE"};
	cleanup_free char *upper = xstrdup(name);
	for (char *p = upper; *p; p++)
		*p = *p == '-' || *p == '.' ? '_' : (char)toupper((unsigned char)*p);
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (strstr(upper, words[i]))
			return true;
	return false;
}

/* "...?user=u&password=p": the values of parameters whose names say so. */
static void mask_query(const char *p, struct buffer *out)
{
	while (*p) {
		size_t name = strcspn(p, "=&#"), whole = strcspn(p, "&#");
		cleanup_free char *text = xstrndup(p, name);
		if (name < whole && env_name_is_secret(text))
			buffer_printf(out, "%s=" MASK, text);
		else
			buffer_add(out, p, whole);
		p += whole;
		if (*p == '#') {
			buffer_adds(out, p);
			return;
		}
		if (*p)
			buffer_addc(out, *p++);
	}
}

static bool is_number(const char *p, size_t len)
{
	return len && strspn(p, "0123456789") >= len;
}

/* Length of the userinfo before its '@'; 0: none. A password with a bare '/', '?' or '#' in it is no RFC 3986, and is
 * written all the same: then what follows the colon is no port, and an '@' comes later. */
static size_t userinfo_length(const char *authority)
{
	size_t len = strcspn(authority, "/?#"), at = len;
	while (at && authority[at - 1] != '@')
		at--;
	if (at)
		return at - 1;
	const char *colon = memchr(authority, ':', len), *later = strrchr(authority, '@');
	if (colon && later && *authority != '[' && !is_number(colon + 1, (size_t)(authority + len - colon - 1)))
		return (size_t)(later - authority);
	return 0;
}

/* The last word before an '=': of "User Id" that says enough. */
static bool is_secret_word(const char *text, const char *equals)
{
	while (equals > text && (equals[-1] == ' ' || equals[-1] == '\t'))
		equals--;
	const char *word = equals;
	while (word > text && (isalnum((unsigned char)word[-1]) || strchr("_-.", word[-1])))
		word--;
	cleanup_free char *name = xstrndup(word, (size_t)(equals - word));
	return !strcasecmp(name, "pwd") || env_name_is_secret(name);
}

/* Is what follows a separator another pair? The rest of a password with that in it is none: rather too much is masked. */
static bool begins_pair(const char *p)
{
	static const char *const two[] = {"user ", "data ", "initial "};
	p += strspn(p, " \t");
	for (size_t i = 0; i < sizeof two / sizeof two[0]; i++)
		if (!strncasecmp(p, two[i], strlen(two[i])))
			return true;
	const char *end = p;
	while (isalnum((unsigned char)*end) || (*end && strchr("_-.", *end)))
		end++;
	return !*p || (end > p && end[strspn(end, " \t")] == '=');
}

static const char *secret_end(const char *p, const char *separators)
{
	const char quote = *p == '\'' || *p == '"' ? *p : '\0';
	for (const char *q = p + 1; quote && *q; q++) {
		if (*q == quote)
			return q + 1;
		q += *q == '\\' && q[1];
	}
	for (p += strcspn(p, separators); *p && !begins_pair(p + 1); p++, p += strcspn(p, separators))
		;
	return p;
}

/* "host=x password=p" of libpq, "Server=x;Password=p" of ADO.NET. new */
static char *mask_pairs(const char *text)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	const char *separators = strchr(text, ';') ? ";" : " \t\n", *from = text;
	for (const char *equals = strchr(text, '='); equals; equals = strchr(equals + 1, '=')) {
		const char *value = equals + 1 + strspn(equals + 1, " \t");
		if (!*value || !is_secret_word(text, equals))
			continue;
		buffer_add(&out, from, (size_t)(value - from));
		from = secret_end(value, separators);
		if (from > value)
			buffer_adds(&out, MASK);
		equals = from - 1;
	}
	buffer_adds(&out, from);
	return buffer_detach(&out);
}

char *url_mask_password(const char *url)
{
	cleanup_buffer struct buffer out = BUFFER_INIT;
	const char *scheme = strstr(url, "://");
	const char *authority = scheme ? scheme + 3 : url; /* "user:password@tcp(host)/db", as Go's drivers have it */
	size_t len = userinfo_length(authority);
	const char *colon = memchr(authority, ':', len), *rest = authority;
	buffer_add(&out, url, (size_t)(authority - url));
	if (colon && colon + 1 < authority + len) {
		buffer_add(&out, authority, (size_t)(colon + 1 - authority));
		buffer_adds(&out, MASK);
		rest = authority + len;
	}
	size_t path = strcspn(rest, "?");
	buffer_add(&out, rest, path + (rest[path] == '?'));
	if (rest[path])
		mask_query(rest + path + 1, &out);
	return scheme && !strchr(url, ';') ? buffer_detach(&out) : mask_pairs(buffer_str(&out)); /* jdbc:sqlserver://host;password=p */
}

/* A short value ("dev") may be a part of anything: it counts where it stands alone, and not as a part of a path. */
static bool stands_alone(const char *text, const char *hit, size_t len)
{
	const char before = hit > text ? hit[-1] : ' ', after = hit[len] ? hit[len] : ' ';
	return !isalnum((unsigned char)before) && !isalnum((unsigned char)after) && !strchr("/_-", before) &&
	       !strchr("/_-", after);
}

void text_mask_value(char **text, const char *value)
{
	size_t len = value ? strlen(value) : 0;
	if (len < 3) /* masking "a" would say more than it hides */
		return;
	cleanup_buffer struct buffer out = BUFFER_INIT;
	const char *from = *text;
	for (const char *hit = from; (hit = strstr(hit, value));) {
		bool counts = len >= MASK_ANYWHERE_LEN || stands_alone(*text, hit, len);
		buffer_add(&out, from, (size_t)(hit - from));
		buffer_adds(&out, counts ? MASK : value);
		from = hit += len;
	}
	if (from == *text)
		return;
	buffer_adds(&out, from);
	free(*text);
	*text = buffer_detach(&out);
}
