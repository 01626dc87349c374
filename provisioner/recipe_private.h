/* Shared by recipe.c and recipe_find.c alone. */
#ifndef PROVISIONER_RECIPE_PRIVATE_H
#define PROVISIONER_RECIPE_PRIVATE_H

#include <pthread.h>

#include "provisioner/recipe.h"

struct recipes {
	struct recipe **items;
	size_t count;
	pthread_mutex_t lock; /* of what follows */
	struct found_program *found;
	size_t n_found;
	char *found_file; /* where it is kept; NULL: nowhere */
};

void recipe_found_free(struct recipes *rs);

#endif
