#compdef ajj
# zsh completion for ajj. `ajj help --json` is the table that a test compares this file with.

_ajj() {
	local -a commands options
	local -a words_=(${(@)words[2,CURRENT-1]:#-*})
	commands=(workspace attach detach up down destroy restart stop start run exec env ports compose-config devcontainer trust status list logs stats trash cleanup init jj help)
	options=(--json --help)
	case "${words_[1]} ${words_[2]}" in
	' ') compadd -- $commands --version $options && return; _ajj_jj; return ;;
	'workspace ') options=(add forget list rename root update-stale) ;;
	'workspace add') options+=(--options --up --name --revision --message --sparse-patterns); _directories ;;
	'workspace forget') options+=(--repository) ;;
	'trash ') options=(list restore empty) ;;
	'trash restore') options+=(--env --here) ;;
	attach*) options+=(--options); _directories ;;
	detach*) _directories ;;
	up*) options+=(--all --build --plain --profile); _ajj_services ;;
	env*) options+=(--container --explain --format sh docker json nul) ;;
	restart*|stop*|'start '*) _ajj_services ;;
	logs*) options+=(--follow --tail); _ajj_services ;;
	compose-config*) options+=(--format yaml json --effective --profile) ;;
	devcontainer*) options+=(--docker --sandbox --vcs) ;;
	trust*) options+=(--show --revoke) ;;
	cleanup*|down*) options+=(--force) ;;
	'help '*) options=($commands) ;;
	'exec ') options+=(--no-tty --user --workdir --env --interactive --tty); _ajj_services ;;
	'run ') [[ $PREFIX == -* ]] && options+=(--in --no-tty --user --workdir --env) || { _normal; return } ;;
	'run '*|'exec '*) _normal; return ;;
	'workspace list'|'trash '*|down*|destroy*|ports*|status*|stats*|list*) ;;
	*) _ajj_jj; return ;;
	esac
	compadd -- $options
}

# looking starts nothing: the directory of the services is no demand
_ajj_services() {
	[[ -d .aether/services ]] && compadd -- .aether/services/*(N:t)
}

# what jj's own completion says, when it is loaded
_ajj_jj() {
	words[1]=jj
	(( $+functions[_jj] )) && _jj
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
	_ajj "$@"
else
	compdef _ajj ajj
fi
