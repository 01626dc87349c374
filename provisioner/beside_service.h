/* What a program needs to find the service that it is run beside (`.aether/services/NAME/exec`, of `ajj exec`): one JSON object,
 * {"env": {...}, "arguments": {"redis-cli": ["-p", "21001"]}}: variables that its surroundings may lack, and the first arguments of programs that
 * read none. Secret, as `.env` is. */
#ifndef PROVISIONER_BESIDE_SERVICE_H
#define PROVISIONER_BESIDE_SERVICE_H

#include "base/buffer.h"
#include "provisioner/model.h"

/* `m` and `s` may be NULL: there is nothing to be known. */
void beside_service(const struct model *m, const struct model_service *s, struct buffer *out);

#endif
