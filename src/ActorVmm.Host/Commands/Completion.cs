using System.CommandLine;
using System.Text;

namespace ActorVmm.Host.Commands;

/// <summary>
/// <c>completion bash|zsh</c>: a script for the shell, made from the commands as they are. Names of VMs are asked of the host while one
/// types; everything else is in the script, and costs nothing.
/// </summary>
internal static class Completion
{
    // Commands whose arguments are names of VMs.
    private static readonly string[] s_takeVms = ["start", "stop", "kill", "restart", "pause", "resume", "rm", "logs", "console", "pulse",
        "inspect"];

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
    public static string Bash(RootCommand root)
    {
        var text = new StringBuilder();
        text.Append("# bash completion of actorvmm; made by: actorvmm completion bash\n");
        text.Append("_actorvmm() {\n");
        text.Append("  local word=${COMP_WORDS[COMP_CWORD]} command= i words=\n");
        text.Append("  for ((i = 1; i < COMP_CWORD; i++)); do\n");
        text.Append("    if [[ ${COMP_WORDS[i]} != -* ]]; then command=${COMP_WORDS[i]}; break; fi\n");
        text.Append("  done\n");
        text.Append("  case $command in\n");
        text.Append("    '') words='").Append(string.Join(' ', Names(root))).Append("' ;;\n");
        foreach (var command in root.Subcommands)
        {
            text.Append("    ").Append(command.Name).Append(") words='").Append(string.Join(' ', OptionsOf(root, command))).Append('\'');
            if (string.Equals(command.Name, "completion", StringComparison.Ordinal)) text.Append("\" bash zsh\"");
            text.Append(" ;;\n");
        }

        text.Append("  esac\n");
        text.Append("  if [[ $word != -* && ' ").Append(string.Join(' ', s_takeVms))
            .Append(" ' == *\" $command \"* && -n $command ]]; then\n");
        text.Append("    words+=\" $(actorvmm ps --names 2>/dev/null)\"\n");
        text.Append("  fi\n");
        text.Append("  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n");
        text.Append("  if ((${#COMPREPLY[@]} == 0)); then COMPREPLY=($(compgen -f -- \"$word\")); fi\n");
        text.Append("}\n");
        text.Append("complete -o filenames -F _actorvmm actorvmm ./actorvmm\n");
        return text.ToString();
    }

    /// <summary>For zsh 5 and later.</summary>
    public static string Zsh(RootCommand root)
    {
        var text = new StringBuilder();
        text.Append("#compdef actorvmm\n# zsh completion of actorvmm; made by: actorvmm completion zsh\n");
        text.Append("_actorvmm() {\n  local -a words\n  local command=${words[2]}\n");
        text.Append("  if ((CURRENT == 2)); then\n    words=(\n");
        foreach (var command in root.Subcommands)
            text.Append("      '").Append(command.Name).Append(':')
                .Append((command.Description ?? "").Replace("'", "", StringComparison.Ordinal).Replace(":", "\\:",
                    StringComparison.Ordinal)).Append("'\n");
        text.Append("    )\n    _describe command words\n    return\n  fi\n");
        text.Replace("  local -a words\n  local command=${words[2]}\n", "  local command=${words[2]}\n  local -a found\n");
        text.Replace("    words=(\n", "    found=(\n").Replace("_describe command words\n", "_describe command found\n");
        text.Append("  case $command in\n");
        foreach (var command in root.Subcommands)
            text.Append("    ").Append(command.Name).Append(") found=(").Append(string.Join(' ', OptionsOf(root, command)))
                .Append(") ;;\n");
        text.Append("  esac\n");
        text.Append("  if [[ ${words[CURRENT]} != -* && ' ").Append(string.Join(' ', s_takeVms))
            .Append(" ' == *\" $command \"* ]]; then\n");
        text.Append("    found+=(${(f)\"$(actorvmm ps --names 2>/dev/null)\"})\n  fi\n");
        text.Append("  compadd -- $found\n  _files\n}\n");
        text.Append("if [[ $funcstack[1] == _actorvmm ]]; then _actorvmm \"$@\"; else compdef _actorvmm actorvmm; fi\n");
        return text.ToString();
    }

    private static IEnumerable<string> Names(RootCommand root) =>
        root.Subcommands.Select(command => command.Name).Concat(["--help", "--version"]);

    private static IEnumerable<string> OptionsOf(RootCommand root, Command command) =>
        command.Options.Concat(root.Options.Where(option => option.Recursive)).SelectMany(option => option.Aliases.Prepend(option.Name))
            .Where(name => name.StartsWith("--", StringComparison.Ordinal)).Distinct(StringComparer.Ordinal);
}
