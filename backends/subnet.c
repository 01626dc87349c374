#include "backends/subnet.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"

struct subnet {
	uint32_t base;
	uint64_t size;
	unsigned bits;
};

static bool parse_address(const char *text, uint32_t *ret)
{
	struct in_addr a;
	if (!text || inet_pton(AF_INET, text, &a) != 1)
		return false;
	*ret = ntohl(a.s_addr);
	return true;
}

static bool parse(const char *text, struct subnet *ret)
{
	const char *slash = text ? strchr(text, '/') : NULL;
	cleanup_free char *address = slash ? xstrndup(text, (size_t)(slash - text)) : NULL;
	size_t digits = slash ? strspn(slash + 1, "0123456789") : 0;
	if (!digits || digits > 2 || slash[1 + digits] || !parse_address(address, &ret->base))
		return false;
	ret->bits = (unsigned)strtoul(slash + 1, NULL, 10);
	if (ret->bits > 32)
		return false;
	ret->size = UINT64_C(1) << (32 - ret->bits);
	ret->base &= (uint32_t) ~(ret->size - 1);
	return true;
}

bool subnet_is(const char *text)
{
	struct subnet s;
	return parse(text, &s);
}

/* Where the `size` addresses from `base` on are in `to`; false: in none of its places. */
static bool move(uint32_t base, uint64_t size, const char *from, const char *to, uint32_t *ret)
{
	struct subnet a, b;
	if (!parse(from, &a) || !parse(to, &b) || base < a.base || base - a.base + size > a.size || base - a.base + size > b.size)
		return false;
	*ret = b.base + (base - a.base);
	return true;
}

static char *text_of(uint32_t address)
{
	return xasprintf("%u.%u.%u.%u", address >> 24, address >> 16 & 255, address >> 8 & 255, address & 255);
}

/* The last one of a subnet is for all of it. */
char *subnet_moved(const char *address, const char *from, const char *to)
{
	uint32_t a, moved, next;
	bool fits = parse_address(address, &a) && move(a, 1, from, to, &moved);
	bool last = fits && strcmp(from, to) && !move(a, 2, from, to, &next);
	return fits && !last ? text_of(moved) : NULL;
}

char *subnet_moved_part(const char *part, const char *from, const char *to)
{
	struct subnet p;
	uint32_t moved;
	if (!parse(part, &p) || !move(p.base, p.size, from, to, &moved))
		return NULL;
	cleanup_free char *base = text_of(moved);
	return xasprintf("%s/%u", base, p.bits);
}
