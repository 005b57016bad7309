import ArgumentParser

@main
struct Amorce: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "amorce")
}
