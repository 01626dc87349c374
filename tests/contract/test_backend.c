/* What every backend promises, over those that need nothing installed. */
#include "tests/contract/backend_suite.h"

int main(void)
{
	static const char *const names[] = {"process", "memory", NULL}, *const bare[] = {"process", NULL};
	int failed = run_suite(names);
	if (setenv("AETHER_PROCESS_NAMESPACES", "off", 1) || setenv("AETHER_PROCESS_CGROUPS", "off", 1)) /* as on hosts that have none for us */
		return 1;
	return failed + run_suite(bare);
}
