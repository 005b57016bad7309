import ArgumentParser
import BootSequence
import HostSystem

struct Render: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Render the templates, and nothing else.",
        discussion: """
            Without a flag it renders everything and says what would change, file by file. With --check it exits with 1 where \
            a file differs from what is in place.
            """)

    @OptionGroup var options: GlobalOptions
    @Flag(help: "Show the differences, secrets hidden.") var diff = false
    @Flag(help: "Exit with 1 where anything differs.") var check = false
    @Flag(help: "Print the comparison as JSON.") var json = false
    @Option(
        help: ArgumentHelp(
            "Write the rendered files below this directory, which must be new or empty.", valueName: "dir"))
    var output: String?

    func run() throws {
        let made = try options.inspect { (run, transport, stop, observer) throws(BootFailure) in
            try Preview.make(run, includingData: false, transport: transport, stop: stop, observer: observer)
        }
        if let output { try write(made.files, to: GlobalOptions.absolute(output)) }
        if json {
            Output.json(made.preview)
        } else if diff {
            Plan.show(made.preview.files)
        } else if output == nil {
            for file in made.preview.files {
                Output.line("\(file.change.rawValue): \(file.path)" + (file.note.map { " (\($0))" } ?? ""))
            }
        }
        if check && made.preview.files.contains(where: { $0.change != .same }) {
            throw ExitCode(ExitStatus.failed.code)
        }
    }

    private func write(_ files: [RenderedFile], to directory: String) throws {
        do {
            if try !Files.names(in: directory).isEmpty {
                throw ValidationError("\(directory) is not empty; give a new directory")
            }
            // Secrets may be in any of them.
            try Files.makeDirectories(directory, mode: 0o700)
            for file in files {
                let place = directory + file.entry.path
                if let parent = Files.parent(of: place) { try Files.makeDirectories(parent) }
                switch file.entry.kind {
                case .symlink: try Files.symlink(target: file.entry.target, at: place)
                case .file: try AtomicFile.prepare(file.bytes, at: place, mode: file.entry.mode)
                }
                Output.line(place)
            }
        } catch let error as HostError {
            throw options.refusal(BootFailure(.render, "writing rendered files to \(directory)", error))
        }
    }
}
