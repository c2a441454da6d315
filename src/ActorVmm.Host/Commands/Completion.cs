using System.CommandLine;
using System.CommandLine.Completions;
using System.Text;

namespace ActorVmm.Host.Commands;

/// <summary>
/// <c>completion bash|zsh</c>: a script for the shell, made from the commands as they are. Names of VMs are asked of the host while one
/// types, with the program and the socket that stand on the line; everything else is in the script, and costs nothing.
/// </summary>
internal static class Completion
{
    // What a reply may be besides words.
    private const string Files = "FILES", Vms = "VMS";

    public static Command Command(RootCommand root)
    {
        var shell = new Argument<string>("SHELL") { Description = "bash or zsh." };
        shell.AcceptOnlyFromAmong("bash", "zsh");
        var command = new Command("completion", "Prints a script that completes commands, options and VM names.") { shell };
        command.SetAction(parsed =>
        {
            parsed.InvocationConfiguration.Output
                .Write(string.Equals(parsed.GetValue(shell), "zsh", StringComparison.Ordinal) ? Zsh(root) : Bash(root));
            return ExitCodes.Success;
        });
        return Examples.Of(command, "source <(actorvmm completion bash)", "actorvmm completion zsh > ~/.zfunc/_actorvmm");
    }

    /// <summary>For bash 4 and later.</summary>
    public static string Bash(RootCommand root) =>
        "# bash completion of actorvmm; made by: actorvmm completion bash\n" + Common(root) + """
        _actorvmm() {
          local reply i before=
          local -a words
          words=()
          # bash cuts words at = and : too; here they are whole.
          for ((i = 0; i < COMP_CWORD; i++)); do
            if [[ $i != 0 && ( ${COMP_WORDS[i]} == [=:] || $before == [=:] ) ]]; then words[${#words[@]}-1]+=${COMP_WORDS[i]}
            else words+=("${COMP_WORDS[i]}")
            fi
            before=${COMP_WORDS[i]}
          done
          COMPREPLY=()
          _actorvmm_words "${COMP_WORDS[COMP_CWORD]}" "${words[@]}"
          if [[ $reply == FILES ]]; then
            compopt -o filenames 2>/dev/null
            COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
          else
            COMPREPLY=($(compgen -W "$reply" -- "${COMP_WORDS[COMP_CWORD]}"))
          fi
        }
        complete -F _actorvmm actorvmm ./actorvmm

        """;

    /// <summary>For zsh 5 and later.</summary>
    public static string Zsh(RootCommand root)
    {
        var text = new StringBuilder("#compdef actorvmm\n# zsh completion of actorvmm; made by: actorvmm completion zsh\n");
        text.Append(Common(root)).Append("_actorvmm() {\n  local reply\n  local -a found\n  if ((CURRENT == 2)); then\n    found=(\n");
        foreach (var command in root.Subcommands)
        {
            var what = (command.Description ?? "").Replace("'", "", StringComparison.Ordinal).Replace(":", "\\:", StringComparison.Ordinal);
            text.Append("      '").Append(command.Name).Append(':').Append(what).Append("'\n");
        }

        return text.Append("""
                )
                if [[ $words[CURRENT] == -* ]]; then compadd -- --help --version --verbose; else _describe command found; fi
                return
              fi
              _actorvmm_words "$words[CURRENT]" "${(@)words[1,CURRENT-1]}"
              if [[ $reply == FILES ]]; then
                _files
              else
                found=(${=reply})
                compadd -- $found
              fi
            }
            if [[ $funcstack[1] == _actorvmm ]]; then _actorvmm "$@"; else compdef _actorvmm actorvmm; fi

            """).ToString();
    }

    /// <summary>A function for both shells: what may stand next, in <c>reply</c>; or FILES. Its arguments are the word that is being typed
    /// and the words before it.</summary>
    private static string Common(RootCommand root)
    {
        var text = new StringBuilder("_actorvmm_value() {\n  case \"$1 $2\" in\n");
        foreach (var command in root.Subcommands)
        {
            foreach (var option in OptionsOf(root, command).Where(TakesValue))
            {
                var values = ValuesOf(option);
                var what = values.Length > 0 ? string.Join(' ', values) : option.HelpName switch
                {
                    "FILE" or "PATH" or "FOLDER" => Files, "VM" => Vms, _ => "",
                };
                text.Append("    ").Append(string.Join('|', NamesOf(option).Select(name => $"'{command.Name} {name}'")))
                    .Append(") reply='").Append(what).Append("' ;;\n");
            }
        }

        // A word behind an option that takes a value is that value, and no argument.
        text.Append("""
                *) return 1 ;;
              esac
            }
            _actorvmm_words() {
              local word=$1 program=$2 command= before= count=0 one
              local -a socket
              socket=()
              shift 2
              for one in "$@"; do
                case $before in
                  --socket|-s) socket=(--socket "$one") ;;
                esac
                if [[ -z $command && $one != -* ]]; then command=$one
                elif [[ $one != -* ]] && ! _actorvmm_value "$command" "$before"; then count=$((count + 1))
                fi
                before=$one
              done
              reply=
              if ! _actorvmm_value "$command" "$before"; then

            """);
        text.Append("  case $command in\n    '') reply='")
            .Append(string.Join(' ', root.Subcommands.Select(command => command.Name).Concat(["--help", "--version", "--verbose"])))
            .Append("' ;;\n");
        foreach (var command in root.Subcommands) AppendCommand(text, root, command);
        return text.Append("""
              esac
              fi
              if [[ $reply == VMS ]]; then reply=$("$program" ps --names ${socket[@]+"${socket[@]}"} 2>/dev/null); fi
            }

            """).ToString();
    }

    private static void AppendCommand(StringBuilder text, RootCommand root, Command command)
    {
        var options = string.Join(' ', OptionsOf(root, command).SelectMany(NamesOf)
            .Where(name => name.StartsWith("--", StringComparison.Ordinal)).Append("--help").Distinct(StringComparer.Ordinal));
        text.Append("    ").Append(command.Name).Append(")\n      if [[ $word == -* ]]; then reply='").Append(options).Append("'\n");
        if (command.Subcommands.Count > 0)
            text.Append("      elif ((count == 0)); then reply='")
                .Append(string.Join(' ', command.Subcommands.Where(below => !below.Hidden).Select(below => below.Name))).Append("'\n      else reply=FILES\n");
        for (var i = 0; i < command.Arguments.Count; i++)
        {
            var argument = command.Arguments[i];
            var what = argument.Name switch
            {
                "VM" or "PATH" => Vms,
                "FILE" or "RUN" or "LEFT" or "RIGHT" => Files,
                _ => $"'{string.Join(' ', ValuesOf(argument))}'",
            };
            var condition = argument.Arity.MaximumNumberOfValues > 1 ? "" : $"((count == {i}))";
            text.Append(condition.Length > 0 ? $"      elif {condition}; then reply={what}\n" : $"      else reply={what}\n");
            if (condition.Length == 0) break;
        }

        text.Append("      fi ;;\n");
    }

    private static IEnumerable<Option> OptionsOf(RootCommand root, Command command) =>
        command.Options.Concat(root.Options.Where(option => option.Recursive))
            .Concat(command.Subcommands.Where(below => !below.Hidden).SelectMany(below => below.Options)).DistinctBy(option => option.Name, StringComparer.Ordinal);

    private static IEnumerable<string> NamesOf(Option option) =>
        option.Aliases.Prepend(option.Name).Where(name => name.StartsWith('-')).Distinct(StringComparer.Ordinal);

    private static bool TakesValue(Option option) => option.Arity.MinimumNumberOfValues > 0 && option.ValueType != typeof(bool);

    // What AcceptOnlyFromAmong has allowed; a number or a text has no list.
    private static string[] ValuesOf(Symbol symbol) =>
        [.. symbol.GetCompletions(CompletionContext.Empty).Select(item => item.Label).Distinct(StringComparer.Ordinal)];
}
