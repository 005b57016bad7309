internal import HostSystem

/// One question to a store until it has its answer: asks, lets the judge decide, and asks again as long as that can help.
struct Exchange: Sendable {
    let transport: any HTTPTransport
    let retry: RetryPolicy
    let log: Log

    /// `attempt` makes each request anew, so that it carries a fresh signature. Throws what the judge names, the wrapped
    /// `HTTPFailure`, or the `StopReason`.
    func answer(
        _ object: String, stop: StopFlag, wrap: (HTTPFailure) -> any Error, attempt: () throws -> RangeSource.Attempt
    ) throws -> HTTPResponse {
        var failures = 0
        var repeats = 0
        while true {
            let attempt = try attempt()
            var hint: Duration?
            let problem: any Error
            do {
                let response = try transport.perform(attempt.request, stop: stop)
                switch attempt.judge(response) {
                case .accept: return response
                case .fail(let error): throw error
                case .again:
                    repeats += 1
                    if repeats > 6 { throw StoreError.tooManyRedirects(object: object) }
                    continue
                case .later(let after, let error):
                    hint = after
                    problem = error
                }
            } catch let failure as HTTPFailure {
                guard failure.isWorthRetrying else { throw wrap(failure) }
                problem = wrap(failure)
            }
            failures += 1
            guard let pause = retry.pause(afterFailure: failures, hint: hint, random: .random(in: 0..<1)) else {
                throw problem
            }
            log.detail("\(problem); asking again in \(pause.spoken)")
            try stop.sleep(pause)
        }
    }
}
