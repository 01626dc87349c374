# Services that are built, on a container engine. Sourced by tests/e2e/docker_build and tests/e2e/podman_build, after lib.sh and containers.sh.

# images: the names of what was built here, and of what lost its name
images() {
	api GET '/images/json?filters=%7B%22label%22%3A%5B%22aether.build%22%5D%7D' | python3 -c '
import json, sys
for image in json.load(sys.stdin):
    for name in image.get("RepoTags") or ["none"]:
        print(name.removeprefix("localhost/").removeprefix("docker.io/library/"))' | sort
}

image_of() {
	api GET "/images/$AETHER_NAMESPACE-$1/json" | json_field Id
}

# page NAME: what the service web says there
page() {
	curl -sS --max-time 5 "http://127.0.0.1:$(port_of web)/$1"
}

error_of() {
	ajj up "$@" --json 2>/dev/null | python3 -c 'import json, sys; e = json.load(sys.stdin)["error"]; print(e["code"], e["message"], e.get("hint"), e.get("details", {}).get("log"))'
}

app() {
	mkdir -p app/node_modules/x app/secret && cd app && git init -q . || exit 1
	printf '.env\nnode_modules\n**/*.log\nsecret\n!secret/shown\n' >.dockerignore
	echo one >file
	echo shown >secret/shown
	echo hidden >secret/hidden
	touch node_modules/x/y a.log "spaces and ä"
	printf '#!/bin/sh\necho runs\n' >tool
	chmod 751 tool
	ln -s file link
	cat >Dockerfile <<'DOCKERFILE'
FROM busybox:1 AS base
ARG GREETING=none
ARG UNSET=unset
ARG FROM_ENVIRONMENT
RUN mkdir -p /www && echo "$GREETING $UNSET $FROM_ENVIRONMENT" >/www/greeting
FROM base AS final
COPY . /src
RUN cp /src/file /www/file && find /src -maxdepth 2 | sed 's,.*/,,' >/www/list && stat -c %a /src/tool >/www/mode && readlink /src/link >/www/link
CMD ["httpd", "-f", "-p", "8080", "-h", "/www"]
FROM base AS never
RUN false
DOCKERFILE
	cat >compose.yaml <<'YAML'
services:
  web:
    build:
      context: .
      target: final
      args: { GREETING: "${WORD:-hello}", FROM_ENVIRONMENT: , NOT_SET: }
      labels: { com.example.label: given }
      shm_size: 16m
    ports: ["8080"]
    stop_signal: KILL
  other:
    image: example.test/shared:dev
    build: { context: ., target: final }
    ports: ["8080"]
    stop_signal: KILL
  taker:
    image: example.test/shared:dev
    ports: ["8080"]
    stop_signal: KILL
YAML
	export FROM_ENVIRONMENT=environment
	ajj attach && cd . || fail attach
	AETHER_NAMESPACE=$(field namespace)
}

is_built() {
	ajj up web || fail "ajj up web: $(cat .aether/errors.json)"
	same 'hello unset environment' "$(page greeting)" 'the arguments'
	same one "$(page file)" 'a file of the context'
	same 751 "$(page mode)" 'a mode'
	same file "$(page link)" 'a link'
	for name in .dockerignore Dockerfile compose.yaml file 'spaces and ä' shown; do
		page list | grep -qx "$name" || fail "$name did not go along: $(page list)"
	done
	page list | grep -E 'node_modules|log|hidden|aether|^\.env$' && fail 'went along, and should not'
	same "$AETHER_NAMESPACE-web:latest" "$(images)" 'the images'
	api GET "/images/$AETHER_NAMESPACE-web/json" | grep -q '"com.example.label": *"given"' || fail 'its labels'
	grep -q '"type":"build".*"state":"building' .aether/events || fail "no event of a build: $(tail -3 .aether/events)"
	grep -q '"building"' .aether/status.json && fail 'status.json tells of a build that is over'
	true
}

# a read of .env starts none that is built, nor one whose image is built by another
is_not_read() {
	. ./.env || fail 'source .env'
	same '' "$(things containers | grep -v -e "-web$")" 'containers that a read started'
}

is_built_again_when_it_must() {
	local container image
	container=$(id_of web) image=$(image_of web)
	ajj up web || fail 'up without a change'
	same "$container $image" "$(id_of web) $(image_of web)" 'container and image after an up without a change'
	touch file node_modules/new
	git commit -q --allow-empty -m x
	ajj up web || fail 'up with other times'
	same "$container" "$(id_of web)" 'the container after what is no change of the image'
	echo two >file
	ajj up web || fail 'up with another file'
	same two "$(page file)" 'a changed file'
	echo three >file
	ajj down && . ./.env && ajj start web || fail 'down and start'
	same two "$(page file)" 'what a start takes without a look at the context'
	ajj up web || fail 'up'
	same three "$(page file)" 'a file that changed before a start'
	echo WORD=changed >.env
	ajj up web || fail 'up with another argument'
	same 'changed unset environment' "$(page greeting)" 'a changed argument'
	container=$(id_of web)
	ajj up --build web || fail 'up --build'
	same "$AETHER_NAMESPACE-web:latest" "$(images)" 'images after several builds'
}

shares_what_is_equal() {
	local builds
	ajj up --all || fail "ajj up --all: $(cat .aether/errors.json)"
	same "$AETHER_NAMESPACE-other:latest
$AETHER_NAMESPACE-web:latest" "$(images)" 'images of all'
	cp -a ../app ../twin && cd ../twin && rm -rf .aether .env && echo WORD=changed >.env && ajj attach && cd . || fail 'attach the twin'
	builds=$(date +%s)
	ajj up other || fail 'ajj up of the twin'
	grep -q 'building [0-9]*/' .aether/events && fail 'the same was built again for another workspace'
	ajj destroy && cd .. && ajj detach twin && rm -rf twin && cd app || fail 'the end of the twin'
	same three "$(page file)" 'the first workspace after the end of its twin'
	ajj up --all || fail 'up after the end of the twin'
}

says_what_failed() {
	cp Dockerfile good
	printf 'FROM busybox:1\nRUN echo in the middle && ls /nowhere\n' >Dockerfile
	sed -i 's/target: final//' compose.yaml
	case $(error_of web) in
	*'BUILD_FAILED service web: the image could not be built, at step 2 of '*'/nowhere'*build.log*'in the middle'*) ;;
	*) fail "the error of a build: $(error_of web)" ;;
	esac
	same three "$(page file)" 'what ran before a build that failed'
	rm Dockerfile
	case $(error_of web) in
	*'BUILD_FAILED service web: build of web (.): Dockerfile: No such file'*) ;;
	*) fail "the error without a Dockerfile: $(error_of web)" ;;
	esac
	mv good Dockerfile
	git checkout -q compose.yaml 2>/dev/null || sed -i 's/context: \.$/context: .\n      target: final/; s/context: \., *}/context: ., target: final }/' compose.yaml
}

# another Dockerfile: outside of the context, in the file itself, left out of the context
other_dockerfiles() {
	mkdir -p ctx ../outside
	echo in-the-context >ctx/file
	printf 'FROM busybox:1\nCOPY . /www/\nCMD ["httpd", "-f", "-p", "8080", "-h", "/www"]\n' >../outside/web.Dockerfile
	printf 'services:\n  web: { stop_signal: KILL, build: { context: ctx, dockerfile: ../../outside/web.Dockerfile, network: none, extra_hosts: ["a.test:10.1.2.3"], no_cache: true }, ports: ["8080"] }\n' >compose.yaml
	ajj up web || fail "a Dockerfile outside: $(cat .aether/errors.json)"
	same in-the-context "$(page file)" 'of a Dockerfile outside'
	printf 'services:\n  web:\n    stop_signal: KILL\n    ports: ["8080"]\n    build:\n      context: ctx\n      dockerfile_inline: |\n        FROM busybox:1\n        COPY file /www/inline\n        CMD ["httpd", "-f", "-p", "8080", "-h", "/www"]\n' >compose.yaml
	ajj up web || fail "dockerfile_inline: $(cat .aether/errors.json)"
	same in-the-context "$(page inline)" 'of dockerfile_inline'
	cp ../outside/web.Dockerfile ctx/Dockerfile
	echo 'Dockerfile*' >ctx/.dockerignore
	printf 'services:\n  web: { stop_signal: KILL, build: ctx, ports: ["8080"] }\n' >compose.yaml
	ajj up web || fail "a Dockerfile that is left out: $(cat .aether/errors.json)"
	same in-the-context "$(page file)" 'of a Dockerfile that is left out of its context'
	same 404 "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$(port_of web)/Dockerfile")" 'that Dockerfile in the image'
}

# a service that mounts its context sees the files as they are
live_context() {
	[ "$(id -u)" = 0 ] || return 0 # the engine may not look into a user's mount
	printf 'services:\n  web: { stop_signal: KILL, build: ctx, ports: ["8080"], volumes: ["./ctx:/www"] }\n' >compose.yaml
	ajj up web || fail 'a service that mounts its context'
	local container
	container=$(id_of web)
	echo live >ctx/file
	same live "$(page file)" 'a mounted file'
	ajj up web || fail up
	same "$container" "$(id_of web)" 'the container after a change that it sees'
	echo '# a change' >>ctx/Dockerfile
	ajj up web || fail up
	[ "$container" != "$(id_of web)" ] || fail 'a changed Dockerfile counts for nothing'
}

names_what_it_cannot() {
	printf 'services:\n  web: { stop_signal: KILL, build: { context: ctx, ssh: [default], secrets: [], cache_to: ["type=local,dest=x"] }, ports: ["8080"] }\n' >compose.yaml
	case $(error_of web) in
	*BUILD_FAILED*'build.ssh is not supported'*) ;;
	*) fail "build.ssh: $(error_of web)" ;;
	esac
	printf 'services:\n  web: { stop_signal: KILL, build: { context: ctx, additional_contexts: { a: ./x } }, ports: ["8080"] }\n' >compose.yaml
	case $(error_of web) in
	*BUILD_FAILED*'build.additional_contexts is not supported'*) ;;
	*) fail "build.additional_contexts: $(error_of web)" ;;
	esac
	printf 'services:\n  web: { stop_signal: KILL, build: { context: ctx, cache_to: ["type=local,dest=x"], sbom: true }, ports: ["8080"] }\n' >compose.yaml
	ajj up web || fail 'with cache_to'
	grep -q 'web.build.cache_to: is not used' .aether/status.json || fail 'build.cache_to is not named'
}

building() {
	python3 -c 'import json; s = json.load(open(".aether/status.json"))["services"]["web"]; exit(0 if s.get("building", {}).get("step") else 1)'
}

# whoever asked is interrupted, or it is all torn down: the build ends. `step_s`: how long the step would last
can_be_ended() {
	printf 'FROM busybox:1\nRUN echo begun; sleep %s\n' "$step_s" >ctx/Dockerfile
	# what a script puts into the background ignores SIGINT
	python3 -c 'import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp("ajj", ["ajj", "up", "web"])' >../said 2>&1 &
	local ajj=$! begun
	wait_for 30 'the build goes on' building
	kill -INT $ajj
	begun=$(date +%s)
	wait $ajj
	same 130 $? 'exit status of an interrupted up'
	wait_for 10 'the interrupted build is over' not building
	ajj up web >../said 2>&1 &
	ajj=$!
	wait_for 30 'the build goes on' building
	ajj destroy || fail 'destroy while it builds'
	wait $ajj && fail 'an up succeeds that was torn down'
	printf 'services:\n  web: { stop_signal: KILL, build: { context: ctx, network: none }, ports: ["8080"] }\nx-aether: { services: [web], timeout: 2s }\n' >compose.yaml
	ajj trust && ajj trash empty || fail 'ajj trust'
	cat .env >../said 2>&1 &
	ajj=$!
	wait_for 30 'a read builds' building
	sleep 4
	building || fail 'a read gave up while its service was being built'
	rm .env || fail 'rm .env while it builds'
	wait $ajj && fail 'a read succeeds that was torn down'
	[ $(($(date +%s) - begun)) -lt 60 ] || fail 'the ends took too long'
	wait_for 20 'no container of a build is left' builds_are_over
}

builds_are_over() {
	api GET '/containers/json' | python3 -c 'import json, sys; exit(any("sleep " in c.get("Command", "") for c in json.load(sys.stdin)))'
}

# what a killed keeper has left goes with the next cleanup; images of others stay, also what they have made of ours
is_swept() {
	printf 'FROM busybox:1\nCMD ["httpd", "-f", "-p", "8080"]\n' >ctx/Dockerfile
	ajj up web || fail 'up'
	api POST "/images/$AETHER_NAMESPACE-web/tag?repo=example.test/mine&tag=1" >/dev/null || fail tag
	cd .. || exit 1
	kill -9 "$(cd app && field aetherfs keeper_pid)" "$(cd app && field aetherfs server_pid)" || fail 'kill -9'
	wait_for 10 'nobody serves it' not test -e app/.aether/status.json
	ajj cleanup --force || fail 'cleanup --force'
	same "$AETHER_NAMESPACE-web:latest
example.test/mine:1" "$(images)" 'images after cleanup --force'
	none_of containers || fail "left by cleanup --force: $(things containers)"
	ajj attach app && cd app && cd . && ajj up web || fail 'up after cleanup'
}

# a teardown, and a beginning: the image rests with the data
rests() {
	local image
	image=$(image_of web)
	ajj destroy && ajj up web || fail 'destroy and up'
	same "$image" "$(image_of web)" 'the image after a teardown'
	ajj trash empty || fail 'trash empty'
	ajj down && ajj up web || fail 'down and up'
	same "$image" "$(image_of web)" 'an image that is used, after its first data has gone'
	ajj destroy && ajj trash empty || fail 'destroy'
	same 'example.test/mine:1' "$(images)" 'what others have made of ours'
	api DELETE '/images/example.test/mine:1' >/dev/null || fail rmi
	ajj up web || fail 'up'
}

leaves_nothing() {
	ajj destroy && cd .. && ajj detach app && ajj trash empty || fail 'the end'
	same '' "$(images)" 'images that are left'
	none_of containers || fail "left: $(things containers)"
	none_of networks || fail "left: $(things networks)"
}

build_job() {
	app
	for step in "$@"; do
		printf '== %s\n' "$step"
		"$step"
	done
}
