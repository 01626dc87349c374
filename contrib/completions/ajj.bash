# bash completion for ajj. `ajj help --json` is the table that a test compares this file with.
_ajj() {
	local word=${COMP_WORDS[COMP_CWORD]} words=() options='--json --help' i
	for ((i = 1; i < COMP_CWORD; i++)); do
		[[ ${COMP_WORDS[i]} == -* ]] || words+=("${COMP_WORDS[i]}")
	done
	local commands='workspace attach detach up down destroy restart stop start run exec env ports compose-config devcontainer trust status list logs stats trash cleanup init jj help'
	case "${words[0]-} ${words[1]-}" in
	' ') # the command itself, or one of jj's
		mapfile -t COMPREPLY < <(compgen -W "$commands --version $options" -- "$word")
		[ ${#COMPREPLY[@]} -gt 0 ] || _ajj_jj
		return
		;;
	'workspace ') options='add forget list rename root update-stale' ;;
	'workspace add') options+=' --options --up --name --revision --message --sparse-patterns' ;;
	'workspace forget') options+=' --repository' ;;
	'trash ') options='list restore empty' ;;
	'trash restore') options+=' --env --here' ;;
	attach*) options+=' --options' ;;
	up*) options+=" --all --build --plain --profile $(_ajj_services)" ;;
	env*) options+=' --container --explain --format sh docker json nul' ;;
	restart* | stop* | 'start '*) options+=" $(_ajj_services)" ;;
	logs*) options+=" --follow --tail $(_ajj_services)" ;;
	compose-config*) options+=' --format yaml json --effective --profile' ;;
	devcontainer*) options+=' --docker --sandbox --vcs' ;;
	trust*) options+=' --show --revoke' ;;
	cleanup* | down*) options+=' --force' ;;
	'help '*) options=$commands ;;
	'exec ')
		options=" --no-tty --user --workdir --env --interactive --tty $(_ajj_services)"
		;;
	'run ' | 'run '* | 'exec '*) # a command line of its own
		[[ ${words[1]-} || $word != -* || ${words[0]} != run ]] || {
			mapfile -t COMPREPLY < <(compgen -W '--in --no-tty --user --workdir --env' -- "$word")
			return
		}
		mapfile -t COMPREPLY < <(compgen -c -- "$word")
		return
		;;
	'workspace list' | 'trash '* | detach* | down* | destroy* | ports* | status* | stats* | list*) ;;
	*)
		_ajj_jj
		return
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
	case "${words[0]-} ${words[1]-}" in
	'workspace add' | attach* | detach*) mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -d -- "$word") ;;
	esac
}

# looking starts nothing: the directory of the services is no demand
_ajj_services() {
	[ -d .aether/services ] && ls .aether/services
}

# what jj's own completion says, when it is loaded (source <(COMPLETE=bash jj))
_ajj_jj() {
	local jj
	jj=$(complete -p jj 2>/dev/null | sed -n 's/.*-F \([^ ]*\).*/\1/p')
	[ -z "$jj" ] || { COMP_WORDS[0]=jj; "$jj" jj "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"; }
}

complete -o default -F _ajj ajj
