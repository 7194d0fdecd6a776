"""Benchmarks whose answers a judge reads: what is asked, the policy's turns, the judge's verdicts, the scores.

Holds     AlpacaEval's, MT-Bench's and Arena-Hard's ways to ask and to be judged, over local files
Must not  train, rank; a score must not ask a judge
An edit   of `questions` reruns what is asked, of `turns` the policies' answers, of `verdicts` the judge, who is not
          paid for what his ledger holds, of `scores` seconds
"""
