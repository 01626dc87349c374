# fish completion for ajj. `ajj help --json` is the table that a test compares this file with.
set -l commands workspace attach detach up down destroy restart stop start run exec env ports compose-config devcontainer trust status list logs stats trash cleanup init jj help

# looking starts nothing: the directory of the services is no demand
function __ajj_services
    test -d .aether/services; and ls .aether/services
end

complete -c ajj -f
complete -c ajj -l json -d 'one JSON document on stdout, also on failure'
complete -c ajj -s h -l help -d 'help'
complete -c ajj -n __fish_use_subcommand -s V -l version -d 'print the version'
complete -c ajj -n __fish_use_subcommand -a "$commands"
complete -c ajj -n '__fish_seen_subcommand_from workspace; and not __fish_seen_subcommand_from add forget list' -a 'add forget list rename root update-stale'
complete -c ajj -n '__fish_seen_subcommand_from workspace; and __fish_seen_subcommand_from add' -l up -d 'start the services, too'
complete -c ajj -n '__fish_seen_subcommand_from workspace; and __fish_seen_subcommand_from add' -s o -l options -r -d 'mount options'
complete -c ajj -n '__fish_seen_subcommand_from workspace; and __fish_seen_subcommand_from add' -a '(__fish_complete_directories)'
complete -c ajj -n '__fish_seen_subcommand_from workspace; and __fish_seen_subcommand_from forget' -s R -l repository -r
complete -c ajj -n '__fish_seen_subcommand_from trash; and not __fish_seen_subcommand_from list restore empty' -a 'list restore empty'
complete -c ajj -n '__fish_seen_subcommand_from trash; and __fish_seen_subcommand_from restore' -l env -d 'the lines of .env, too'
complete -c ajj -n '__fish_seen_subcommand_from trash; and __fish_seen_subcommand_from restore' -l here -d 'the data of another workspace'
complete -c ajj -n '__fish_seen_subcommand_from attach' -s o -l options -r -d 'mount options'
complete -c ajj -n '__fish_seen_subcommand_from attach detach' -a '(__fish_complete_directories)'
complete -c ajj -n '__fish_seen_subcommand_from up' -l all -d 'also what has build:'
complete -c ajj -n '__fish_seen_subcommand_from up' -l build -d 'build images anew'
complete -c ajj -n '__fish_seen_subcommand_from up' -l plain -d 'without FUSE'
complete -c ajj -n '__fish_seen_subcommand_from up' -l profile -r -d 'also these profiles'
complete -c ajj -n '__fish_seen_subcommand_from up logs exec restart stop start' -a '(__ajj_services)'
complete -c ajj -n '__fish_seen_subcommand_from env' -s f -l format -x -a 'sh docker json nul'
complete -c ajj -n '__fish_seen_subcommand_from env' -l explain
complete -c ajj -n '__fish_seen_subcommand_from env' -l container -d 'as containers have them'
complete -c ajj -n '__fish_seen_subcommand_from logs' -s f -l follow -d 'go on with what is added'
complete -c ajj -n '__fish_seen_subcommand_from logs' -s n -l tail -x -d 'the last lines alone'
complete -c ajj -n '__fish_seen_subcommand_from compose-config' -l format -x -a 'yaml json'
complete -c ajj -n '__fish_seen_subcommand_from compose-config' -l effective -d 'with the ports and names of this workspace'
complete -c ajj -n '__fish_seen_subcommand_from compose-config' -l profile -r -d 'also these profiles'
complete -c ajj -n '__fish_seen_subcommand_from devcontainer' -l docker -d 'arguments of docker run'
complete -c ajj -n '__fish_seen_subcommand_from devcontainer' -l sandbox -d 'with a read-only .aether'
complete -c ajj -n '__fish_seen_subcommand_from devcontainer' -l vcs -d 'with the .jj and .git of the main checkout'
complete -c ajj -n '__fish_seen_subcommand_from trust' -l show -d 'approve nothing'
complete -c ajj -n '__fish_seen_subcommand_from trust' -l revoke -d 'forget what was approved'
complete -c ajj -n '__fish_seen_subcommand_from cleanup down' -l force -d 'do it'
complete -c ajj -n '__fish_seen_subcommand_from help' -a "$commands"
complete -c ajj -n '__fish_seen_subcommand_from run' -a '(__fish_complete_command)'
complete -c ajj -n '__fish_seen_subcommand_from run' -l in -x -d 'in a container of this image'
complete -c ajj -n '__fish_seen_subcommand_from run exec' -s T -l no-tty -d 'plain pipes'
complete -c ajj -n '__fish_seen_subcommand_from run exec' -s u -l user -x -d 'as another user'
complete -c ajj -n '__fish_seen_subcommand_from run exec' -s w -l workdir -r -d 'in another directory'
complete -c ajj -n '__fish_seen_subcommand_from run exec' -s e -l env -x -d 'set a variable'
complete -c ajj -n '__fish_seen_subcommand_from exec' -s i -l interactive -d 'it is so by itself'
complete -c ajj -n '__fish_seen_subcommand_from exec' -s t -l tty -d 'it is so by itself'
