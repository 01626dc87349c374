/* What the administrator lets users do with FUSE: /etc/fuse.conf, mount.fuse3(8). */
#ifndef BASE_FUSE_CONF_H
#define BASE_FUSE_CONF_H

#include <stdbool.h>

bool fuse_conf_allows_other(void); /* user_allow_other */

#endif
