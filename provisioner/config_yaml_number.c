/* What a plain scalar is to the YAML reader of docker compose (https://github.com/yaml/go-yaml, resolve.go, which goes on beyond YAML 1.2: 010, 1_000
 * and 0b1 are numbers), and how Go writes the number. */
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "provisioner/config_yaml.h"

static char *without_underscores(const char *text)
{
	char *copy = xstrdup(text), *to = copy;
	for (const char *from = text; *from; from++)
		if (*from != '_')
			*to++ = *from;
	*to = '\0';
	return copy;
}

static int base_of(const char **at)
{
	if ((*at)[0] != '0' || !(*at)[1])
		return 10;
	const char *const kinds = "xXoObB", *kind = strchr(kinds, (*at)[1]);
	*at += kind ? 2 : 1;
	return !kind ? 8 : kind < kinds + 2 ? 16 : kind < kinds + 4 ? 8 : 2;
}

/* As strconv.ParseInt and ParseUint with base 0. new; NULL: none */
static char *integer(const char *text)
{
	static const char digits[] = "0123456789abcdefABCDEF";
	const char *at = text + (*text == '-' || *text == '+');
	bool negative = *text == '-', has_sign = at != text;
	int base = base_of(&at);
	size_t known = base == 16 ? strlen(digits) : (size_t)base;
	cleanup_free char *allowed = xstrndup(digits, known);
	if (!*at || at[strspn(at, allowed)])
		return NULL;
	errno = 0;
	unsigned long long value = strtoull(at, NULL, base);
	if (errno || (has_sign && value > (unsigned long long)INT64_MAX + negative))
		return NULL;
	return xasprintf("%s%llu", negative && value ? "-" : "", value);
}

/* [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)? */
static bool is_float(const char *text)
{
	static const char digits[] = "0123456789";
	const char *at = text + (*text == '-' || *text == '+');
	size_t whole = strspn(at, digits), fraction = at[whole] == '.' ? strspn(at + whole + 1, digits) : 0;
	if (!whole && !fraction)
		return false;
	at += whole + (at[whole] == '.') + fraction;
	if (*at != 'e' && *at != 'E')
		return !*at;
	at += 1 + (at[1] == '-' || at[1] == '+');
	return *at && !at[strspn(at, digits)];
}

/* As strconv.FormatFloat with 'g' and the fewest digits that are this number. */
static char *shortest(double value)
{
	char text[40];
	int digits = 0, exponent;
	do
		snprintf(text, sizeof text, "%.*e", digits, value);
	while (strtod(text, NULL) != value && ++digits < 17);
	exponent = atoi(strchr(text, 'e') + 1);
	if (exponent < -4 || exponent >= 6)
		return xstrdup(text);
	return xasprintf("%.*f", digits > exponent ? digits - exponent : 0, value);
}

static char *real(const char *text)
{
	static const char *const infinities[] = {".inf", ".Inf", ".INF"}, *const nans[] = {".nan", ".NaN", ".NAN"};
	const char *rest = text + (*text == '-' || *text == '+');
	for (size_t i = 0; i < 3; i++) {
		if (!strcmp(rest, infinities[i]))
			return xstrdup(*text == '-' ? "-Inf" : "+Inf");
		if (!strcmp(text, nans[i]))
			return xstrdup("NaN");
	}
	double value = is_float(text) ? strtod(text, NULL) : INFINITY;
	return isfinite(value) ? shortest(value) : NULL;
}

char *yaml_number(const char *text, bool *ret_integer)
{
	*ret_integer = false;
	if (!strchr("0123456789+-.", *text))
		return NULL;
	cleanup_free char *plain = without_underscores(text);
	char *number = integer(plain);
	*ret_integer = number != NULL;
	return number ? number : real(plain);
}
