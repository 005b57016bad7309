import ArgumentParser
import BootSequence
import HostSystem

struct Plan: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show what boot or sync would do; change nothing.",
        discussion: "The rsync plan, and the difference in every rendered file, secrets hidden.")

    @OptionGroup var options: GlobalOptions
    @Flag(help: "Print the plan as JSON.") var json = false

    func run() throws { try Self.show(options, isJSON: json) }

    static func show(_ options: GlobalOptions, isJSON: Bool) throws {
        let preview = try options.inspect { (run, transport, stop, observer) throws(BootFailure) in
            try Preview.make(run, includingData: true, transport: transport, stop: stop, observer: observer).preview
        }
        if isJSON { return Output.json(preview) }
        Output.line(
            "\(preview.app) in \(preview.environment): "
                + (preview.release.map { "release \($0) is live" } ?? "no release yet"))
        if let backup = preview.backup { Output.line("restore: \(Printable.text(backup))") }
        if let plan = preview.delta {
            Output.line("delta:   " + (plan.isEmpty ? "nothing has changed" : plan.summary))
            if plan.exceedsLimit {
                Output.line(
                    "         refused: it would delete \(plan.deleted) of \(plan.existing) entries, and "
                        + "delta.refuse-deleting-more-than allows \(plan.deletionsAllowed)")
            }
            for change in plan.entries { Output.line("  " + Self.mark(change.kind) + " " + change.path) }
        } else if let note = preview.deltaNote {
            Output.line("delta:   " + note)
        }
        show(preview.files)
        if !preview.changesAnything { Output.line("nothing would change") }
    }

    private static func mark(_ kind: RsyncChange.Kind) -> String {
        switch kind {
        case .created: "+"
        case .changed: "~"
        case .deleted: "-"
        case .metadata: "m"
        }
    }

    static func show(_ files: [Preview.File]) {
        let style = TerminalStyle(hasColor: Output.isColored, hasUnicode: false)
        for file in files where file.change != .same {
            Output.line("\(file.change.rawValue): \(file.path)" + (file.note.map { " (\($0))" } ?? ""))
            for line in file.diff {
                let text = Printable.text(line, limit: 2000)
                switch line.first {
                case "+": Output.line("  " + style.good(text))
                case "-": Output.line("  " + style.bad(text))
                default: Output.line("  " + text)
                }
            }
        }
    }
}
