/* Workspaces without the overlay, as ajj sees them (provisioner/native.h). */
#ifndef CLI_NATIVE_H
#define CLI_NATIVE_H

#include "cli/client.h"

/* Takes away what a keeper that was killed left standing in the workspace. Success when there is nothing, or somebody serves it. `c` is right afterwards. */
int native_repair(struct client *c, struct error *err);

/* The directory was moved here and its server, which ends then, has not seen it yet: waits for that. Before anybody says who it is. */
void native_wait_moved(const char *root);

/* One line to the server of a plain workspace; returns when it is done. */
int native_command(const struct client *c, const char *line, struct error *err);

/* The files tell what is true now. Where the server does not answer in time, they stay what they were. */
void native_look(const struct client *c);

/* The same of a demand. A descriptor (close-on-exec), whose being open is the lease. */
int native_demand(const struct client *c, struct error *err);

/* A lease without a demand: what `ajj exec` needs beside that service, new. */
int native_hold(const struct client *c, const char *service, json_t **ret, struct error *err);

/* Would reading this file of the control file system start the services? */
bool native_is_demand(const char *file);

#endif
